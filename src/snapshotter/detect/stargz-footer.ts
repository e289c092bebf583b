/**
 * The end of an eStargz layer: an empty gzip member whose extra field tells where the table of contents begins. Source: docs/formats/estargz.md, "Footer".
 *
 * | bytes | |
 * |---|---|
 * | 10 | gzip header with FEXTRA |
 * | 2 | length of the extra field, little-endian: 26 (22 in the older form) |
 * | 4 | subfield `SG` and its length, 22; not in the older form |
 * | 22 | 16 hexadecimal digits and `STARGZ` |
 * | 5 | an empty stored block |
 * | 8 | CRC-32 and size of nothing |
 */
export const FOOTER_BYTES = 10 + 2 + 4 + 22 + 5 + 8
const OLD_FOOTER_BYTES = FOOTER_BYTES - 4
const TAIL = Buffer.from([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0])
const FEXTRA = 4

export interface StargzFooter {
  /** Where the table's gzip member begins in the layer. */
  readonly tocOffset: number
  /** Of the footer itself. */
  readonly bytes: number
}

/** From the last {@link FOOTER_BYTES} bytes of a layer. Undefined for any other layer. */
export function parseStargzFooter(end: Uint8Array): StargzFooter | undefined {
  return parse(end, FOOTER_BYTES, [26, 0, 0x53, 0x47, 22, 0]) ?? parse(end, OLD_FOOTER_BYTES, [22, 0])
}

function parse(end: Uint8Array, bytes: number, lengths: readonly number[]): StargzFooter | undefined {
  if (end.length < bytes) return undefined
  const footer = Buffer.from(end.subarray(end.length - bytes))
  const isGzip = footer[0] === 0x1f && footer[1] === 0x8b && footer[2] === 8 && footer[3] === FEXTRA
  if (!isGzip || !lengths.every((byte, at) => footer[10 + at] === byte)) return undefined
  if (!footer.subarray(bytes - TAIL.length).equals(TAIL)) return undefined
  const payload = footer.toString('latin1', 10 + lengths.length, bytes - TAIL.length)
  const digits = /^([0-9a-fA-F]{16})STARGZ$/.exec(payload)?.[1]
  const tocOffset = digits === undefined ? Number.NaN : Number(`0x${digits}`)
  return Number.isSafeInteger(tocOffset) ? { tocOffset, bytes } : undefined
}
