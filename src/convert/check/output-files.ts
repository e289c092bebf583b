import { mkdir, realpath, rm, writeFile } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import type { Bootstrap } from '../../rafs/index.ts'
import { BOOTSTRAP_PATH, type UnpackedBootstrap } from '../bootstrap-layer.ts'
import { ConvertError } from '../errors.ts'
import { type DocumentKind, goJson } from '../go-json.ts'
import type { ImagePair, OpenedImage } from '../source-image.ts'

/** Where the unpacked bootstrap layer goes. */
const BOOTSTRAP_FOLDER = 'nydus_bootstrap'

/**
 * Empties the folder that the results go to, as the original does: what lay there is gone. Throws 'BAD_OPTION' rather than empty a folder that the process stands in.
 */
export async function emptyOutputFolder(path: string): Promise<void> {
  const [folder, here] = await Promise.all([realPath(path), realpath('.')])
  if (`${here}${sep}`.startsWith(folder === sep ? sep : `${folder}${sep}`)) {
    throw new ConvertError(
      'BAD_OPTION',
      `--work-dir ${path} would be emptied, and it holds the current folder; name a folder for the results only`,
    )
  }
  await rm(path, { recursive: true, force: true })
}

async function realPath(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return resolve(path)
    throw error
  }
}

/** Writes what an image says of itself, under the original's names. */
export async function writeDocuments(folder: string, { index, plain, nydus }: ImagePair): Promise<void> {
  await mkdir(folder, { recursive: true })
  const write = async (name: string, kind: DocumentKind, document: object): Promise<void> => {
    await writeFile(join(folder, name), goJson(kind, document, 'indented'))
  }
  const writeImage = async (prefix: 'oci' | 'nydus', image: OpenedImage | undefined): Promise<void> => {
    if (image === undefined) return
    if (index !== undefined) await write(`${prefix}_index.json`, 'index', index.index)
    await write(`${prefix}_manifest.json`, 'manifest', image.manifest)
    await write(`${prefix}_config.json`, 'config', image.config)
  }
  await writeImage('oci', plain)
  await writeImage('nydus', nydus)
}

/** Writes the files of the bootstrap layer; their paths were checked when it was unpacked. */
export async function writeBootstrapFiles(folder: string, { files }: UnpackedBootstrap): Promise<void> {
  for (const [path, content] of files) {
    const place = join(folder, BOOTSTRAP_FOLDER, path)
    await mkdir(dirname(place), { recursive: true })
    await writeFile(place, content)
  }
}

/** What `nydus-image check --output-json` says of the bootstrap. */
export async function writeBootstrapSummary(folder: string, image: Bootstrap, version: string): Promise<void> {
  const summary = {
    version,
    bootstrap: join(folder, BOOTSTRAP_FOLDER, BOOTSTRAP_PATH),
    blobs: image.blobs.map(({ id }) => id),
    external_bootstrap: '',
    external_blobs: [],
    trace: { consumed_time: {}, registered_events: {} },
    fs_version: String(image.version),
    compressor: image.blobs[0]?.compression ?? 'none',
  }
  await writeFile(join(folder, 'nydus_output.json'), JSON.stringify(summary))
}
