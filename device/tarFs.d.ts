/** The one function of `tar-fs` that is used here; the package brings no types. */
declare module "tar-fs" {
  /** A stream that takes a tar and writes its files below `folder`, but those that `ignore` names by their path, owned by
   *  the archive's user if `chown`. */
  export function extract(
    folder: string,
    options: { ignore(path: string): boolean; chown: boolean },
  ): NodeJS.WritableStream;
}
