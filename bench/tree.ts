import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  closeSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { TarWriter } from '../src/tar/index.ts'
import { type LayerEntry, planLayers } from '../demo/layers.ts'

const ROOT = join(import.meta.dirname, '..')

/** Puts the demo image's files into a folder, as a mounted image would show them. Gives how many entries there are. */
export function writeRealTree(folder: string): number {
  let entries = 0
  for (const layer of planLayers(ROOT)) {
    for (const entry of layer.entries) entries += writeEntry(folder, entry)
  }
  return entries
}

function writeEntry(folder: string, entry: LayerEntry): number {
  const path = join(folder, entry.path)
  if ('deleted' in entry) {
    rmSync(path, { recursive: true, force: true })
    return 0
  }
  if ('directory' in entry) {
    mkdirSync(path, { recursive: true })
    return 1
  }
  mkdirSync(dirname(path), { recursive: true })
  rmSync(path, { force: true, recursive: true })
  if ('text' in entry) writeFileSync(path, entry.text)
  else if (lstatSync(entry.from).isSymbolicLink()) symlinkSync(readlinkSync(entry.from), path)
  else if (existsSync(entry.from)) {
    copyFileSync(entry.from, path)
    chmodSync(path, lstatSync(entry.from).mode & 0o7777)
  }
  return 1
}

/** 65,536 files of 0 to 8,191 bytes in 256 folders: what a builder finds hard. */
export function writeSmallFiles(folder: string): void {
  const text = Buffer.from('const answer = await fetch(new URL(path, base), { method: "GET", headers })\n'.repeat(120))
  for (let index = 0; index < 65_536; index++) {
    const home = join(folder, `d${index >> 8}`)
    if ((index & 255) === 0) mkdirSync(home, { recursive: true })
    const size = createHash('sha1').update(String(index)).digest().readUInt16LE(0) & 8191
    writeFileSync(
      join(home, `f${index & 255}.js`),
      Buffer.concat([Buffer.from(`// ${index}\n`), text.subarray(0, size)]),
    )
  }
}

/** A file that compresses to about half; no megabyte of it, or of one with another seed, is like any other. */
export function writeLargeFile(path: string, bytes: number, firstSeed = 1): void {
  const fd = openSync(path, 'w')
  const piece = Buffer.alloc(1024 * 1024)
  try {
    for (let at = 0, seed = firstSeed; at < bytes; at += piece.length) {
      for (let word = 0; word < piece.length; word += 4) {
        seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
        piece.writeUInt32LE((word & 4) === 0 ? seed : word, word)
      }
      writeSync(fd, piece, 0, Math.min(piece.length, bytes - at))
    }
  } finally {
    closeSync(fd)
  }
}

/** A tar of that many files of some 250 bytes, no two alike, a thousand in a folder: as files they would take minutes to write. */
export async function writeManyFiles(path: string, count: number): Promise<void> {
  const fd = openSync(path, 'w')
  const gathered: Buffer[] = []
  const flush = (): void => {
    writeSync(fd, Buffer.concat(gathered.splice(0)))
  }
  const writer = new TarWriter((bytes) => {
    if (gathered.push(Buffer.from(bytes)) === 4096) flush()
  })
  try {
    for (let index = 0; index < count; index += 1) {
      const folder = `d${Math.floor(index / 1000)}`
      if (index % 1000 === 0) await writer.add({ path: Buffer.from(folder), type: 'directory', mode: 0o755 })
      const content = Buffer.from(`file ${index}\n`.repeat(20))
      const name = Buffer.from(`${folder}/file-${index}.js`)
      await writer.add({ path: name, type: 'file', mode: 0o644, size: content.length, mtimeSeconds: index }, [content])
    }
    await writer.finish()
    flush()
  } finally {
    closeSync(fd)
  }
}
