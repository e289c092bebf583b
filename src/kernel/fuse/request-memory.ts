import { PAGE } from './wire.ts'

/** What requests need that carry no data: header, arguments and a name or two. */
const HEAD_BYTES = 2 * PAGE

/**
 * Memory for requests, `bytes` long, of which those that requests use are there before the first one comes: all when they carry data, else the first pages.
 *
 * Linux (6.18) fails a request with EIO when it cannot copy it, and a thread that is being killed can copy into memory that is there, but not wait for a page of memory that nobody has written to.
 * So a `kill -9` would cost an error where the successor could have answered.
 */
export function requestMemory(bytes: number, carriesData: boolean): ArrayBuffer {
  const memory = new ArrayBuffer(bytes)
  const touched = new Uint8Array(memory, 0, Math.min(bytes, carriesData ? bytes : HEAD_BYTES))
  touched.fill(0)
  return memory
}
