/** What is known of an image that was checked, beside its metadata for the kernel. Source: docs/containerd-nydus-grpc.md, "Images that the kernel shows". */
import { randomBytes } from 'node:crypto'
import { type BigIntStats, closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import * as v from 'valibot'

const Blob = v.object({
  id: v.string(),
  chunkCount: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 24)),
  data: v.string(),
  pins: v.string(),
  claims: v.number(),
})
const Checked = v.object({
  version: v.literal(1),
  reference: v.string(),
  /** Of the bootstrap that the metadata was written from, and of what else decides what it says. */
  source: v.string(),
  bytes: v.number(),
  blobs: v.array(Blob),
})

/** A cache file, as it was when its bytes were compared with the image's digests: the file, its pins, and how many chunks were claimed. */
export type CheckedBlob = v.InferOutput<typeof Blob>
export type CheckedImage = v.InferOutput<typeof Checked>

/** Tells a file from any that has its place later, and from itself with other content. */
export function contentIdentity({ dev, ino, size, mtimeNs }: BigIntStats): string {
  return `${dev} ${ino} ${size} ${mtimeNs}`
}

/** Writes a file, whole or not at all. */
export function placeImage(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.${process.pid}-${randomBytes(6).toString('hex')}.tmp`
  try {
    const fd = openSync(temporary, 'wx', 0o600)
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, path)
  } finally {
    rmSync(temporary, { force: true })
  }
}

export function writeRecord(path: string, record: CheckedImage): void {
  placeImage(path, Buffer.from(JSON.stringify(record)))
}

/** Undefined when there is none that can be used. */
export function readRecord(path: string): CheckedImage | undefined {
  try {
    const parsed = v.safeParse(Checked, JSON.parse(readFileSync(path, 'utf8')))
    return parsed.success ? parsed.output : undefined
  } catch {
    return undefined // it is made again
  }
}
