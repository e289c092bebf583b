import { RafsError } from './errors.ts'

/** 64 times `x`: the blob id of an inlined bootstrap, whose blob's digest is not known when it is written. */
export const INLINED_BLOB_ID = 'x'.repeat(64)

/** Ids become file names and parts of URLs: nothing else than a plain name is taken. Throws 'BAD_TABLE'. */
export function checkBlobId(id: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/.test(id)) {
    throw new RafsError(
      'BAD_TABLE',
      `blob id ${JSON.stringify(id.slice(0, 80))} cannot be a file name; the image is damaged or crafted`,
    )
  }
  return id
}
