/** Compute pipelines of one device: each kernel is compiled once, in parallel with others, and counted. */
import { GpuValidationError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";

/** What a device needs to compile a kernel: generated from its description by `kernels/kernel.ts`. */
export interface CompiledKernel {
  /** Unique: it is the key of the cache. */
  readonly name: string;
  readonly code: string;
  /** Types of bindings 0 (the params), 1, 2, … */
  readonly bindings: readonly GPUBufferBindingType[];
}

/** A compiled kernel with the layout that its bind groups have. */
export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** Compiles on first use and keeps what it compiled. */
export class PipelineCache {
  readonly #gpu: Gpu;
  readonly #pipelines = new Map<string, Promise<Pipeline>>();

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** Pipelines asked for so far. */
  get size(): number {
    return this.#pipelines.size;
  }

  /** Throws GpuValidationError with the compiler's message. */
  get(kernel: CompiledKernel): Promise<Pipeline> {
    let pipeline = this.#pipelines.get(kernel.name);
    if (pipeline === undefined) {
      pipeline = this.#compile(kernel);
      this.#pipelines.set(kernel.name, pipeline);
      pipeline.catch(() => this.#pipelines.delete(kernel.name)); // the next one may try again
    }
    return pipeline;
  }

  async #compile({ name, code, bindings }: CompiledKernel): Promise<Pipeline> {
    const { device } = this.#gpu;
    const entries = bindings.map((type, binding) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type },
    }));
    const layout = device.createBindGroupLayout({ label: name, entries });
    const module = device.createShaderModule({ label: name, code });
    try {
      const compiled = device.createComputePipelineAsync({
        label: name,
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" },
      });
      return { pipeline: await this.#gpu.waitFor(compiled), layout };
    } catch (error) {
      const { messages } = await module.getCompilationInfo();
      const lines = messages.map(({ type, lineNum, message }) => `${type} at line ${lineNum}: ${message}`).join("; ");
      throw new GpuValidationError(`kernel ${name}: ${lines || String(error)}`, { cause: error });
    }
  }
}
