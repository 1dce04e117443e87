/** Why a page has no WebGPU, in sentences for whoever opened it. */

/** The parts of a browser that decide it. */
export interface Host {
  readonly isSecureContext: boolean;
  readonly navigator: { readonly gpu?: Pick<GPU, "requestAdapter"> };
}

/** What is missing and what to do; undefined where there is an adapter. */
export async function webgpuMissing({ isSecureContext, navigator: { gpu } }: Host): Promise<string | undefined> {
  if (!isSecureContext) {
    return "WebGPU is missing: browsers offer it over https and on localhost only, and this page came another way. Open it at an https:// address, or at http://localhost.";
  }
  if (gpu === undefined) {
    return "WebGPU is missing: this browser does not have it, or has it switched off. Use Chrome or Edge 113, Safari 26, Firefox 141 or a later one.";
  }
  if ((await gpu.requestAdapter()) !== null) return undefined;
  return "WebGPU is missing: this browser has it, but no graphics adapter for it. Switch graphics acceleration on in its settings, and update the graphics driver; chrome://gpu tells more.";
}
