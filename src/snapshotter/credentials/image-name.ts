import { formatReference, parseReference, type Reference } from '../../registry/index.ts'

/**
 * The one form of an image's reference, in which containerd's CRI writes it into labels too: with registry and path in full, and without the tag
 * where there is a digest (`node:24@sha256:…` is `docker.io/library/node@sha256:…`).
 */
export function imageName(reference: Reference): string {
  return formatReference(reference.digest === undefined ? reference : { ...reference, tag: undefined })
}

/** Undefined for what is no reference. */
export function imageNameOf(text: string): string | undefined {
  const reference = parsedReference(text)
  return reference && imageName(reference)
}

/** Undefined for what is no reference: labels and requests are written by others. */
export function parsedReference(text: string): Reference | undefined {
  try {
    return parseReference(text)
  } catch {
    return undefined // the only thing it can fail for is the text
  }
}
