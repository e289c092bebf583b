/** An image of ourselves, made without Docker: an OCI layout in a folder. Source: the image-layout and config pages of the OCI image specification. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { MEDIA_TYPES } from '../../src/registry/index.ts'
import { MTIME_SECONDS, writeTarGz, type WrittenArchive } from './archive.ts'
import { architecture, fileAt, HOME, installedTree, readManifest, type TreeEntry, withFolders } from './tree.ts'

/** Programs that the launchers, the snapshotter and the node's installation need, with the libraries of this machine. */
const PROGRAMS = 'sh cat chmod cp ln ls mkdir mv nsenter readlink rm sleep stat uname'.split(' ')
/** Modules in machine code, for this C library. */
const NATIVE = /(?<!\/musl_[^/]*)\/[^/]+\.node$/
const CREATED = new Date(MTIME_SECONDS * 1000).toISOString()

export interface Layout {
  readonly folder: string
  readonly digest: string
}

/** Writes the layout of this checkout; `name` is the image's in its index. */
export async function writeLayout(root: string, folder: string, name: string, level = 6): Promise<Layout> {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(folder, 'blobs/sha256'), { recursive: true })
  const node = `${HOME}/node_modules/node-linux-${process.arch}/bin/node`
  const tree = installedTree(root)
  const isRuntime = ({ path }: TreeEntry): boolean => path.startsWith(`${HOME}/node_modules/`)
  const system = systemTree(
    tree.flatMap(({ path, content }) =>
      (path === node || NATIVE.test(path)) && typeof content === 'object' && 'file' in content ? [content.file] : [],
    ),
  )
  const layers: WrittenArchive[] = []
  // What changes least comes first: a new version shares the other two with the old one.
  for (const part of [system, tree.filter(isRuntime), tree.filter((entry) => !isRuntime(entry))]) {
    const scratch = join(folder, 'layer')
    const layer = await writeTarGz(withFolders(part), scratch, { prefix: '', level })
    renameSync(scratch, join(folder, 'blobs/sha256', layer.sha256))
    layers.push(layer)
  }
  const put = (value: unknown): { digest: string; size: number } => putJson(folder, value)
  const config = put(imageConfig(readManifest(root).version, layers))
  const manifest = put({
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, ...config },
    layers: layers.map(({ bytes, sha256 }) => ({
      mediaType: MEDIA_TYPES.ociLayerGzip,
      digest: `sha256:${sha256}`,
      size: bytes,
    })),
  })
  const index = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociIndex,
    manifests: [
      {
        mediaType: MEDIA_TYPES.ociManifest,
        ...manifest,
        platform: { os: 'linux', architecture: architecture() },
        annotations: { 'org.opencontainers.image.ref.name': name },
      },
    ],
  }
  writeFileSync(join(folder, 'index.json'), JSON.stringify(index))
  writeFileSync(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  return { folder, digest: manifest.digest }
}

function putJson(folder: string, value: unknown): { digest: string; size: number } {
  const bytes = Buffer.from(JSON.stringify(value))
  const hex = createHash('sha256').update(bytes).digest('hex')
  writeFileSync(join(folder, 'blobs/sha256', hex), bytes)
  return { digest: `sha256:${hex}`, size: bytes.length }
}

function imageConfig(version: string, layers: readonly WrittenArchive[]): unknown {
  return {
    created: CREATED,
    architecture: architecture(),
    os: 'linux',
    config: {
      Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      Entrypoint: ['/usr/bin/containerd-nydus-grpc'],
      Labels: { 'org.opencontainers.image.version': version, 'org.opencontainers.image.title': 'nydus-node' },
    },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => `sha256:${diffId}`) },
    history: ['the system', 'the runtime', 'nydus-node'].map((comment) => ({ created: CREATED, created_by: comment })),
  }
}

/** A shell, a few programs, and the libraries that they and `more` need. */
function systemTree(more: readonly string[]): TreeEntry[] {
  const programs = PROGRAMS.map((name) => [`/bin/${name}`, programPath(name)] as const)
  const libraries = new Set([...programs.map(([, path]) => path), ...more].flatMap(librariesOf))
  const text = (path: string, content: string): TreeEntry => ({ path, mode: 0o644, content: { text: content } })
  return [
    ...programs.map(([at, from]) => fileAt(realpathSync(from), at)),
    ...[...libraries].map((path) => fileAt(realpathSync(path), path)),
    text('/etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n'),
    text('/etc/group', 'root:x:0:\n'),
    text('/etc/nsswitch.conf', 'hosts: files dns\n'),
    ...['/root', '/proc', '/sys', '/dev', '/run', '/var/lib', '/etc/nydus'].map(
      (path): TreeEntry => ({ path, mode: 0o755, content: 'directory' }),
    ),
    { path: '/tmp', mode: 0o1777, content: 'directory' },
  ]
}

function programPath(name: string): string {
  const found = ['/bin', '/usr/bin', '/sbin', '/usr/sbin']
    .map((folder) => join(folder, name))
    .find((path) => existsSync(path))
  if (found === undefined) throw new Error(`there is no ${name} on this machine, which the image needs`)
  return found
}

/** Paths as the loader looks them up, itself included. Programs without libraries have none. */
function librariesOf(program: string): string[] {
  const { stdout } = spawnSync('ldd', [program], { encoding: 'utf8' })
  const own = [...(stdout ?? '').matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(([, path]) => path ?? '')
  // Names of hosts are looked up by libraries that are loaded by name.
  const resolvers = own
    .filter((path) => path.endsWith('/libc.so.6'))
    .flatMap((path) =>
      ['libnss_dns.so.2', 'libnss_files.so.2', 'libresolv.so.2'].map((name) => join(dirname(path), name)),
    )
  return [...own, ...resolvers.filter((path) => existsSync(path))]
}
