/** Trees as compressed tars. The same tree gives the same bytes. */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream, statSync } from 'node:fs'
import { once } from 'node:events'
import { createGzip } from 'node:zlib'
import { TarWriter } from '../../src/tar/index.ts'
import type { TreeEntry } from './tree.ts'

/** Of all files: 2026-01-01, so that builds can be compared. */
export const MTIME_SECONDS = 1_767_225_600

export interface WrittenArchive {
  readonly bytes: number
  /** Of the compressed file. */
  readonly sha256: string
  /** Of the tar. */
  readonly diffId: string
  /** Of the content of files. */
  readonly contentBytes: number
}

/** Writes a tree to a `.tar.gz`; `prefix` stands before paths in the place of the first slash (`./` in packages); `level` is gzip's. */
export async function writeTarGz(
  entries: readonly TreeEntry[],
  path: string,
  { prefix, level }: { readonly prefix: '' | './'; readonly level: number },
): Promise<WrittenArchive> {
  const gzip = createGzip({ level })
  const file = createWriteStream(path)
  const [compressed, plain] = [createHash('sha256'), createHash('sha256')]
  let contentBytes = 0
  gzip.on('data', (part: Buffer) => compressed.update(part))
  gzip.pipe(file)
  const closed = once(file, 'close')
  const writer = new TarWriter(async (bytes) => {
    plain.update(bytes)
    if (!gzip.write(Buffer.from(bytes))) await once(gzip, 'drain')
  })
  for (const { path: at, mode, content } of entries) {
    const name = prefix + at.slice(1) + (content === 'directory' ? '/' : '')
    const common = { path: Buffer.from(name), mode, mtimeSeconds: MTIME_SECONDS }
    if (content === 'directory') await writer.add({ ...common, type: 'directory' })
    else if ('link' in content) await writer.add({ ...common, type: 'symlink', link: Buffer.from(content.link) })
    else if ('text' in content) {
      const bytes = Buffer.from(content.text)
      contentBytes += bytes.length
      await writer.add({ ...common, type: 'file', size: bytes.length }, [bytes])
    } else {
      const { size } = statSync(content.file)
      contentBytes += size
      await writer.add({ ...common, type: 'file', size }, createReadStream(content.file))
    }
  }
  await writer.finish()
  gzip.end()
  await closed
  return { bytes: statSync(path).size, sha256: compressed.digest('hex'), diffId: plain.digest('hex'), contentBytes }
}
