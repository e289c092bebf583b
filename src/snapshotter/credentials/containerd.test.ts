/** The image proxy before containerd's real image service, which pulls from a registry that wants a login. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { ContainerdClient, ContainerdError, ImageService, serve } from '../../containerd/index.ts'
import {
  digestOf,
  fromPassword,
  MEDIA_TYPES,
  parseReference,
  RegistryClient,
  startRegistry,
} from '../../registry/index.ts'
import { TarWriter } from '../../tar/index.ts'
import { Credentials } from './credentials.ts'
import { recordedLog, SECRET, settings, shown, temporaryFolder } from './testing.ts'

const skip = whyNot() ?? false
const OWNER = { mode: 0o600, uid: 0, gid: 0 }
const CRI = 'plugins."io.containerd.grpc.v1.cri"'

function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root'
  if (spawnSync('containerd', ['--version']).error !== undefined) return 'containerd is not installed'
  if (spawnSync('runc', ['--version']).error !== undefined) return 'runc is not installed'
  return undefined
}

/** Starts containerd with all of its files in `folder`; resolves when its image service answers. */
async function startContainerd(folder: string, address: string): Promise<ChildProcess> {
  for (const name of ['cni', 'certs']) await mkdir(join(folder, name))
  const text = `version = 2
root = "${folder}/root"
state = "${folder}/state"
[grpc]
  address = "${address}"
[ttrpc]
  address = "${address}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${folder}/opt"
[${CRI}]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [${CRI}.containerd]
    snapshotter = "native"
  [${CRI}.registry]
    config_path = "${folder}/certs"
  [${CRI}.cni]
    bin_dir = "${folder}/cni"
    conf_dir = "${folder}/cni"
`
  await writeFile(join(folder, 'containerd.toml'), text)
  const log = await open(join(folder, 'containerd.log'), 'w')
  const child = spawn('containerd', ['-c', join(folder, 'containerd.toml')], { stdio: ['ignore', log.fd, log.fd] })
  await log.close()
  return child
}

/** Pushes an image with one small layer. */
async function pushImage(host: string): Promise<void> {
  const client = new RegistryClient({ credentials: fromPassword('me', SECRET), plainHttp: 'always' })
  const repository = client.repository(parseReference(`${host}/private/app:v1`))
  const parts: Uint8Array[] = []
  const tar = new TarWriter((bytes) => void parts.push(Buffer.from(bytes)))
  await tar.add({ path: Buffer.from('hello'), type: 'file', mode: 0o644, size: 2 }, [Buffer.from('hi')])
  await tar.finish()
  const plain = Buffer.concat(parts)
  const layer = gzipSync(plain)
  const rootfs = { type: 'layers', diff_ids: [digestOf(plain)] }
  const config = Buffer.from(
    JSON.stringify({ os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64', config: {}, rootfs }),
  )
  for (const bytes of [layer, config])
    await repository.uploadBlob({
      digest: digestOf(bytes),
      size: bytes.length,
      open: async function* () {
        yield bytes
      },
    })
  const of = (mediaType: string, bytes: Uint8Array) => ({ mediaType, digest: digestOf(bytes), size: bytes.length })
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: of(MEDIA_TYPES.ociConfig, config),
    layers: [of(MEDIA_TYPES.ociLayerGzip, layer)],
  }
  await repository.pushManifest('v1', Buffer.from(JSON.stringify(manifest)), MEDIA_TYPES.ociManifest)
  await client.close()
}

/** Until containerd's image service answers; its log when it does not in time. */
async function untilReady(images: ReturnType<typeof imagesOf>, child: ChildProcess, folder: string): Promise<void> {
  const end = Date.now() + 60_000
  for (;;) {
    try {
      await images.listImages({})
      return
    } catch (error) {
      if (Date.now() > end || child.exitCode !== null)
        assert.fail(
          `${(error as Error).message}\n${(await readFile(join(folder, 'containerd.log'), 'utf8')).slice(-3000)}`,
        )
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

const imagesOf = (client: ContainerdClient) => client.service(ImageService)

test('containerd pulls a private image through our socket: the login is known, and forgotten with the image', {
  skip,
  timeout: 180_000,
}, async () => {
  await using folder = await temporaryFolder()
  const [front, back] = [join(folder.path, 'f.sock'), join(folder.path, 'c.sock')]
  const auth = { kind: 'bearer', users: { me: SECRET }, tokenLifeMs: 300_000 } as const
  const registry = await startRegistry({ root: join(folder.path, 'registry'), host: '127.0.0.1', port: 0, auth })
  await pushImage(registry.host)
  const log = recordedLog()
  const open = (): Promise<Credentials> =>
    Credentials.open({
      settings: settings({ cri: { enable: true, imageServiceAddress: back } }),
      directory: join(folder.path, 'kept'),
      log,
      docker: { directory: join(folder.path, 'none') },
    })
  const credentials = await open()
  const server = await serve({ path: front, ...OWNER, services: [], raw: credentials.services })
  const client = new ContainerdClient(front, { namespace: '', timeoutMs: 60_000 })
  const images = imagesOf(client)
  const containerd = await startContainerd(folder.path, back)
  const find = async (): Promise<string> =>
    shown(await credentials.find(`${registry.host}/private/app:v1`, new Map(), new AbortController().signal))
  try {
    await untilReady(images, containerd, folder.path)
    const image = { image: `${registry.host}/private/app:v1` }
    await assert.rejects(images.pullImage({ image }), ContainerdError)
    await assert.rejects(images.pullImage({ image, auth: { username: 'me', password: 'wrong' } }), ContainerdError)
    assert.equal(await find(), 'none')
    const { imageRef } = await images.pullImage({ image, auth: { username: 'me', password: SECRET } })
    assert.match(imageRef, /^sha256:[0-9a-f]{64}$/)
    assert.equal(await find(), `me ${SECRET}`)
    const { image: status } = await images.imageStatus({ image })
    assert.equal(status?.id, imageRef)
    assert.ok(((await images.imageFsInfo({})).imageFilesystems.length ?? 0) > 0)
    // As the kubelet removes images: by id.
    await images.removeImage({ image: { image: imageRef } })
    assert.equal((await images.imageStatus({ image })).image, undefined)
    assert.equal(await find(), 'none')
  } finally {
    client.close()
    await server.stop(0)
    await credentials.close()
    const ended = new Promise((resolve) => containerd.once('exit', resolve))
    containerd.kill('SIGKILL')
    if (containerd.exitCode === null && containerd.signalCode === null) await ended
    await registry.close()
  }
  assert.ok(!log.lines.join('\n').includes(SECRET))
})
