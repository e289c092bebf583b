import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Client, credentials, Metadata, type ServerDuplexStream } from '@grpc/grpc-js'
import {
  type CallWatcher,
  ContainerdClient,
  ContainerdError,
  type Handlers,
  ImageService,
  type RawService,
  type RunningServer,
  serve,
  ServiceForwarder,
  service,
} from './index.ts'

const OWNER = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
const NAME = ImageService.typeName
const same = (bytes: Buffer): Buffer => bytes

interface Bench {
  readonly front: string
  readonly back: string
  readonly client: ContainerdClient
  readonly raw: Client
  readonly seen: string[]
  readonly answer: (services: {
    raw?: readonly RawService[]
    images?: Partial<Handlers<typeof ImageService>>
  }) => Promise<RunningServer>
}

/** A forwarder between two sockets; nobody answers at the back yet. */
async function bench(t: TestContext, watch?: (method: string) => CallWatcher): Promise<Bench> {
  const folder = mkdtempSync(join(tmpdir(), 'forward-'))
  const [front, back] = [join(folder, 'front.sock'), join(folder, 'back.sock')]
  const seen: string[] = []
  const watcher = (method: string): CallWatcher => ({
    request: (message) => void seen.push(`${method} ${message.length}`),
    ended: (isOk) => void seen.push(`${method} ${isOk ? 'ok' : 'failed'}`),
  })
  const forwarder = new ServiceForwarder({ name: NAME, path: back, watch: watch ?? watcher })
  const server = await serve({ path: front, ...OWNER, services: [], raw: [forwarder] })
  const client = new ContainerdClient(front, { namespace: '', timeoutMs: 60_000 })
  const raw = new Client(`unix:${front}`, credentials.createInsecure(), { 'grpc.max_receive_message_length': 1 << 24 })
  t.after(async () => {
    client.close()
    raw.close()
    await server.stop(0)
    forwarder.close()
    rmSync(folder, { recursive: true, force: true })
  })
  const answer: Bench['answer'] = async ({ raw: raws = [], images }) => {
    const services = images === undefined ? [] : [service(ImageService, images as Handlers<typeof ImageService>)]
    const running = await serve({ path: back, ...OWNER, services, raw: raws })
    t.after(() => running.stop(0))
    return running
  }
  return { front, back, client, raw, seen, answer }
}

const codeOf = (code: string) => (error: unknown) => error instanceof ContainerdError && error.code === code

test('a unary call and its answer pass through, unknown fields too, and are seen', async (t) => {
  const { answer, client, raw, seen } = await bench(t)
  await answer({
    images: {
      pullImage: async ({ image, $unknown }) => ({ imageRef: `${image?.image} ${$unknown?.length ?? 0}` }),
      imageStatus: async () => {
        throw new ContainerdError('RESOURCE_EXHAUSTED', 'no room für images')
      },
    },
  })
  const images = client.service(ImageService)
  // ImageSpec in field 1 with `a/b` in its field 1, and field 77, which is nobody's.
  const request = Buffer.from([0x0a, 5, 0x0a, 3, ...Buffer.from('a/b'), 0xe8, 0x04, 1])
  const pulled = await new Promise<Buffer | undefined>((resolve, reject) =>
    raw.makeUnaryRequest(`/${NAME}/PullImage`, same, same, request, (error, bytes) =>
      error === null ? resolve(bytes) : reject(error),
    ),
  )
  assert.deepEqual(pulled?.subarray(2).toString(), 'a/b 1')
  await assert.rejects(images.imageStatus({}), (error: Error) => {
    assert.match(error.message, /no room für images/)
    return codeOf('RESOURCE_EXHAUSTED')(error)
  })
  await assert.rejects(images.listImages({}), codeOf('UNIMPLEMENTED'))
  assert.deepEqual(seen, [
    'PullImage 10',
    'PullImage ok',
    'ImageStatus 0',
    'ImageStatus failed',
    'ListImages 0',
    'ListImages failed',
  ])
})

/** Answers any method: tells its metadata and deadline, echoes each message twice, ends with a trailer. */
const ECHO: RawService = {
  name: NAME,
  handle: (call: ServerDuplexStream<Buffer, Buffer>, path) => {
    const first = new Metadata()
    first.set('path', path)
    first.set('given', String(call.metadata.get('asked')))
    first.set('given-bin', call.metadata.get('asked-bin')[0] ?? Buffer.alloc(0))
    first.set('deadline', String(Number(call.getDeadline())))
    call.sendMetadata(first)
    call.on('data', (message: Buffer) => {
      call.write(message)
      call.write(message)
    })
    call.on('end', () => {
      const last = new Metadata()
      last.set('trailer', 'last')
      call.end(last)
    })
  },
}

test('a method that nobody has heard of, streaming both ways, with metadata, trailers and deadline', async (t) => {
  const { answer, raw } = await bench(t)
  await answer({ raw: [ECHO] })
  const metadata = new Metadata()
  metadata.set('asked', 'this')
  metadata.set('asked-bin', Buffer.from([0, 255, 7]))
  const deadline = Date.now() + 50_000
  const call = raw.makeBidiStreamRequest(`/${NAME}/StreamNewThings`, same, same, metadata, { deadline })
  const got: Buffer[] = []
  const first = Promise.withResolvers<Metadata>()
  const over = Promise.withResolvers<{ code: number; metadata: Metadata }>()
  call.on('metadata', first.resolve)
  call.on('data', (message: Buffer) => got.push(message))
  call.on('status', over.resolve)
  call.write(Buffer.from('one'))
  const answered = await first.promise
  call.write(Buffer.alloc(0))
  call.write(Buffer.alloc(3 << 20, 7))
  call.end()
  const status = await over.promise
  assert.deepEqual(
    got.map(({ length }) => length),
    [3, 3, 0, 0, 3 << 20, 3 << 20],
  )
  assert.equal(String(answered.get('path')), `/${NAME}/StreamNewThings`)
  assert.equal(String(answered.get('given')), 'this')
  assert.deepEqual(answered.get('given-bin'), [Buffer.from([0, 255, 7])])
  // A deadline travels as the time that is left.
  assert.ok(Math.abs(Number(answered.get('deadline')) - deadline) < 5_000)
  assert.equal(status.code, 0)
  assert.equal(String(status.metadata.get('trailer')), 'last')
})

test('sixty-four megabytes to a reader that is slow stay out of memory, and arrive whole', async (t) => {
  const { answer, raw } = await bench(t)
  let written = 0
  await answer({
    raw: [
      {
        name: NAME,
        handle: (call) => {
          call.on('data', () => {})
          const more = (): void => {
            while (written < 64) {
              written += 1
              if (!call.write(Buffer.alloc(1 << 20, written))) return void call.once('drain', more)
            }
            call.end()
          }
          more()
        },
      },
    ],
  })
  const call = raw.makeBidiStreamRequest(`/${NAME}/Much`, same, same)
  call.end()
  let read = 0
  for await (const message of call as AsyncIterable<Buffer>) {
    read += 1
    assert.equal(message[0], read)
    // Windows of HTTP/2 and buffers of streams hold some; not all.
    if (read === 1) assert.ok(written < 64, `${written} written when the first was read`)
  }
  assert.equal(read, 64)
})

test('nobody answers: UNAVAILABLE; then somebody does, goes, and another comes', async (t) => {
  const { answer, client } = await bench(t)
  const images = client.service(ImageService)
  const until = async (wanted: string): Promise<void> => {
    for (;;) {
      const found = await images.pullImage({}).then(
        ({ imageRef }) => imageRef,
        (error: ContainerdError) => error.code,
      )
      if (found === wanted) return
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  await assert.rejects(images.pullImage({}), codeOf('UNAVAILABLE'))
  const first = await answer({ images: { pullImage: async () => ({ imageRef: 'first' }) } })
  await until('first')
  await first.stop(0)
  await until('UNAVAILABLE')
  await answer({ images: { pullImage: async () => ({ imageRef: 'second' }) } })
  await until('second')
})

test('who gives up, and whose deadline passes, ends the call at the back too', async (t) => {
  const { answer, client, seen } = await bench(t)
  const ended: Promise<unknown>[] = []
  const begun = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  await answer({
    images: {
      pullImage: async (_, { signal }) => {
        const over = new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
        begun[ended.length]?.resolve()
        ended.push(over)
        await over
        return {}
      },
    },
  })
  const images = client.service(ImageService)
  const abort = new AbortController()
  const given = assert.rejects(images.pullImage({}, { signal: abort.signal }), codeOf('CANCELLED'))
  await begun[0]?.promise
  abort.abort()
  await given
  await ended[0]
  const late = assert.rejects(images.pullImage({}, { timeoutMs: 2000 }), codeOf('DEADLINE_EXCEEDED'))
  await begun[1]?.promise
  await late
  await ended[1]
  assert.deepEqual(
    seen.filter((line) => line.endsWith('ok')),
    [],
  )
})

test('a watcher that throws ends its call, and no other', async (t) => {
  const { answer, client } = await bench(t, (method) => ({
    request: () => {
      if (method === 'PullImage') throw new Error('not with me')
    },
  }))
  await answer({ images: { pullImage: async () => ({}), listImages: async () => ({}) } })
  await assert.rejects(client.service(ImageService).pullImage({}), /not with me/)
  await client.service(ImageService).listImages({})
})
