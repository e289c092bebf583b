/** Numbers of chunks have 24 bits, and the original never gives out the last one. */
export const MAX_BLOB_CHUNKS = 0xff_ffff
/** Places in a blob have 40 bits. */
export const MAX_BLOB_BYTES = 2 ** 40
