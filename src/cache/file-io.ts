import { read, write } from 'node:fs'

/** Reads what there is from a position on, up to the rest of `into` behind `from`; gives the number of bytes, 0 at the file's end. */
export function readSome(fd: number, into: Uint8Array, from: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, into, from, into.length - from, position, (error, count) => (error ? reject(error) : resolve(count)))
  })
}

/** Writes some of the bytes behind `from` at a position; gives their number. */
export function writeSome(fd: number, bytes: Uint8Array, from: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, from, bytes.length - from, position, (error, count) => (error ? reject(error) : resolve(count)))
  })
}
