import assert from 'node:assert/strict'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import {
  ContainerdClient,
  ContainerdError,
  type Handlers,
  ImageService,
  serve,
  service,
} from '../../containerd/index.ts'
import { PULL_SECRET, PULL_USERNAME } from '../labels.ts'
import { Credentials } from './credentials.ts'
import { recordedLog, SECRET, settings, shown, temporaryFolder } from './testing.ts'

const OWNER = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
const NEVER = new AbortController().signal
const IMAGE_ID = `sha256:${'1'.repeat(64)}`

type Images = ReturnType<typeof imagesOf>
const imagesOf = (client: ContainerdClient) => client.service(ImageService)

interface Bench {
  readonly images: Images
  readonly folder: string
  /** What is found for an image now. */
  readonly find: (image: string) => Promise<string>
  /** Opens anew what a restart would. */
  readonly restart: () => Promise<void>
}

/** A kubelet, our socket, and a runtime that does what `runtime` says. */
async function withProxy(
  runtime: (bench: Bench) => Partial<Handlers<typeof ImageService>>,
  use: (bench: Bench) => Promise<void>,
): Promise<void> {
  await using folder = await temporaryFolder()
  const log = recordedLog()
  const [front, back] = [join(folder.path, 'f.sock'), join(folder.path, 'b.sock')]
  const open = (): Promise<Credentials> =>
    Credentials.open({
      settings: settings({ cri: { enable: true, imageServiceAddress: back } }),
      directory: join(folder.path, 'kept'),
      log,
      docker: { directory: join(folder.path, 'none') },
    })
  let credentials = await open()
  const server = await serve({ path: front, ...OWNER, services: [], raw: credentials.services })
  const client = new ContainerdClient(front, { namespace: '', timeoutMs: 60_000 })
  const bench: Bench = {
    images: imagesOf(client),
    folder: folder.path,
    find: async (image) => shown(await credentials.find(image, new Map(), NEVER)),
    restart: async () => {
      await credentials.close()
      credentials = await open()
    },
  }
  const services = [service(ImageService, runtime(bench) as Handlers<typeof ImageService>)]
  const backend = await serve({ path: back, ...OWNER, services, raw: [] })
  try {
    await use(bench)
  } finally {
    client.close()
    await server.stop(0)
    await backend.stop(0)
    await credentials.close()
  }
  assert.ok(!log.lines.join('\n').includes(SECRET), 'no line of the log shows a secret')
}

const pulls = (): Partial<Handlers<typeof ImageService>> => ({
  pullImage: async ({ image }) => {
    if (image?.image.includes('refused') === true) throw new ContainerdError('UNKNOWN', '401')
    return { imageRef: IMAGE_ID }
  },
  removeImage: async ({ image }) => {
    if (image?.image.includes('used') === true) throw new ContainerdError('FAILED_PRECONDITION', 'in use')
    return {}
  },
})

const base64 = (text: string): string => Buffer.from(text).toString('base64')

test('the credentials of a pull serve before the runtime hears of it, whatever the spelling', () => {
  const during: string[] = []
  return withProxy(
    ({ find }) => ({
      pullImage: async () => {
        during.push(await find('docker.io/library/node:latest'))
        return { imageRef: IMAGE_ID }
      },
    }),
    async ({ images, find }) => {
      const answer = await images.pullImage({ image: { image: 'node' }, auth: { username: 'me', password: SECRET } })
      assert.equal(answer.imageRef, IMAGE_ID)
      assert.deepEqual(during, [`me ${SECRET}`])
      assert.equal(await find('index.docker.io/library/node:latest'), `me ${SECRET}`)
      assert.equal(await find('docker.io/library/node:24'), 'none')
    },
  )
})

describe('forms of credentials in a pull', () => {
  const cases = [
    ['user and password', { username: 'me', password: SECRET }, `me ${SECRET}`],
    ['base64', { auth: base64(`me:${SECRET}`) }, `me ${SECRET}`],
    ['an identity token', { identityToken: 'idt' }, 'token idt'],
    ['a registry token', { registryToken: 'rt' }, 'token rt'],
    ['for this registry', { username: 'me', password: 'p', serverAddress: 'https://a.example/v2/' }, 'me p'],
    ['for another registry', { username: 'me', password: SECRET, serverAddress: 'b.example' }, 'none'],
    ['no base64', { auth: `me:${SECRET}` }, 'none'],
    ['nothing', {}, 'none'],
  ] as const
  for (const [name, auth, wanted] of cases)
    test(name, () =>
      withProxy(pulls, async ({ images, find }) => {
        await images.pullImage({ image: { image: 'a.example/x:1' }, auth })
        assert.equal(await find('a.example/x:1'), wanted)
      }),
    )
  test('Docker Hub by its old address', () =>
    withProxy(pulls, async ({ images, find }) => {
      const auth = { username: 'me', password: 'p', serverAddress: 'https://index.docker.io/v1/' }
      await images.pullImage({ image: { image: 'node' }, auth })
      assert.equal(await find('node'), 'me p')
    }))
})

test('a pull that fails takes nothing away and leaves nothing', () =>
  withProxy(pulls, async ({ images, find }) => {
    const failing = (image: string) =>
      images.pullImage({ image: { image }, auth: { username: 'me', password: 'wrong' } })
    await assert.rejects(failing('a.example/refused'), { message: '401' })
    assert.equal(await find('a.example/refused'), 'none')
    await images.pullImage({ image: { image: 'a.example/x' }, auth: { username: 'me', password: 'right' } })
    await images.pullImage({ image: { image: 'a.example/x' }, auth: { username: 'me', password: 'newer' } })
    assert.equal(await find('a.example/x'), 'me newer')
    await images.pullImage({ image: { image: 'a.example/x' } })
    assert.equal(await find('a.example/x'), 'none', 'it can be pulled without')
  }))

test('of two pulls at once the failing one takes nothing from the other, whichever ends first', async () => {
  for (const endsFirst of ['good', 'bad'] as const) {
    const gates = { good: Promise.withResolvers<void>(), bad: Promise.withResolvers<void>() }
    const begun = { good: Promise.withResolvers<void>(), bad: Promise.withResolvers<void>() }
    await withProxy(
      () => ({
        ...pulls(),
        pullImage: async ({ auth }) => {
          const which = auth?.password === 'good' ? 'good' : 'bad'
          begun[which].resolve()
          await gates[which].promise
          if (which === 'bad') throw new ContainerdError('UNKNOWN', '401')
          return { imageRef: IMAGE_ID }
        },
      }),
      async ({ images, find }) => {
        const pull = (password: string) =>
          images.pullImage({ image: { image: 'a.example/x' }, auth: { username: 'me', password } })
        const good = pull('good')
        await begun.good.promise
        const bad = assert.rejects(pull('bad'))
        await begun.bad.promise
        for (const which of endsFirst === 'good' ? (['good', 'bad'] as const) : (['bad', 'good'] as const)) {
          gates[which].resolve()
          await (which === 'good' ? good : bad)
        }
        assert.equal(await find('a.example/x'), 'me good', `${endsFirst} ends first`)
        await images.removeImage({ image: { image: IMAGE_ID } })
        assert.equal(await find('a.example/x'), 'none')
      },
    )
  }
})

test('they are forgotten when the runtime has removed the image, by name or by its id', () =>
  withProxy(pulls, async ({ images, find }) => {
    const auth = { username: 'me', password: 'p' }
    const all = ['a.example/x:1', 'a.example/x:2', 'a.example/used:1']
    const pulled = async (): Promise<string[]> => {
      const found = await Promise.all(all.map(async (image) => [image, await find(image)]))
      return found.filter(([, login]) => login !== 'none').map(([image = '']) => image)
    }
    for (const image of all) await images.pullImage({ image: { image }, auth })
    await images.removeImage({ image: { image: 'a.example/x:1' } })
    await assert.rejects(images.removeImage({ image: { image: 'a.example/used:1' } }))
    assert.deepEqual(await pulled(), all.slice(1))
    await images.removeImage({ image: { image: '' } })
    await images.removeImage({ image: { image: IMAGE_ID } })
    assert.deepEqual(await pulled(), [])
  }))

test('a restart has them, from a file that only its owner reads', () =>
  withProxy(pulls, async ({ images, find, folder, restart }) => {
    const auth = { username: 'me', password: SECRET }
    for (const image of ['a.example/x:1', 'a.example/y:1']) await images.pullImage({ image: { image }, auth })
    await images.removeImage({ image: { image: 'a.example/y:1' } })
    await restart()
    assert.equal(await find('a.example/x:1'), `me ${SECRET}`)
    assert.equal(await find('a.example/y:1'), 'none')
    const path = join(folder, 'kept/pulls.json')
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    assert.equal(JSON.parse(await readFile(path, 'utf8')).images[0].image_id, IMAGE_ID)
  }))

test('labels come before pulls; what is no message of CRI goes on to the runtime as it is', () =>
  withProxy(pulls, async ({ images, folder }) => {
    await images.pullImage({ image: { image: 'a.example/x' }, auth: { username: 'pulled', password: 'p' } })
    const path = join(folder, 'kept')
    const credentials = await Credentials.open({
      settings: settings({ cri: { enable: true, imageServiceAddress: '/none' } }),
      directory: path,
      log: recordedLog(),
      docker: { directory: join(folder, 'none') },
    })
    const labels = new Map([
      [PULL_USERNAME, 'labelled'],
      [PULL_SECRET, 'p'],
    ])
    assert.equal(shown(await credentials.find('a.example/x', labels, NEVER)), 'labelled p')
    await credentials.close()
  }))
