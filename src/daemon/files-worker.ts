/**
 * The thread that serves the file systems of a session which can change: shared directories and overlays. The session's serving threads pass it the requests of their mounts; it answers them
 * itself. It is one thread, with an event loop: what it knows of open files needs no locks, and a slow disk of the host keeps neither images nor the API waiting.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { checkBuild } from '../kernel/build/index.ts'
import {
  BATCH_FORGET_IN,
  ERRNO,
  FileReply,
  FileRequest,
  forgetAttributes,
  FORGET_IN,
  OPCODE,
  prepareCredentials,
  sendFuse,
  TooLarge,
} from '../kernel/index.ts'
import { messageOf } from './errors.ts'
import { ANSWERED_ELSEWHERE, type FileServer } from './files/file-server.ts'
import { HostTree } from './files/host-tree.ts'
import type {
  FilesNews,
  FilesWorkerData,
  FilesWorkerMessage,
  ForwardedRequest,
  OverlayFiles,
  SharedFiles,
} from './files/messages.ts'
import { errnoOf, OverlayTree } from './files/overlay-tree.ts'
import { FileSystemCounters } from './metrics.ts'
import { answerReportsAlone } from './serving-thread/thread-reports.ts'

const servers = new Map<number, FileServer>()
const reply = new FileReply()
const { build, counters: numbers } = workerData as FilesWorkerData
const counters = new FileSystemCounters(numbers)
/** What another process has in hand until the device comes. */
const resuming = new Map<number, () => void>()
/** Requests that came before the device did. */
const early: ForwardedRequest[] = []
let device = 0
let ownDevice: string | undefined
/** Another process answers from now on: what waited here for data is handed out again, and not to be failed. */
let isLeft = false

function tell(message: FilesWorkerMessage): void {
  parentPort?.postMessage(message)
}

function takeNews(news: FilesNews): void {
  switch (news.kind) {
    case 'port':
      listenTo(news.port)
      return
    case 'device':
      device = news.fd
      for (const resume of resuming.values()) resume()
      resuming.clear()
      for (const request of early.splice(0)) take(request)
      return
    case 'own-device':
      ownDevice = news.device
      for (const server of servers.values()) server.setOwnDevice(news.device)
      return
    case 'attach':
      settle(news.id, () => attach(news))
      return
    case 'detach':
      settle(news.id, () => {
        servers.get(news.slot)?.end()
        servers.delete(news.slot)
        resuming.delete(news.slot)
      })
      return
    case 'fetched': {
      const fetch = fetches.get(news.id)
      fetches.delete(news.id)
      if (news.bytes === undefined) fetch?.reject(new Error('data of the image cannot be read'))
      else fetch?.resolve(news.bytes)
      return
    }
    case 'end':
      isLeft = news.isLeft
      for (const server of servers.values())
        if (news.isLeft) server.leave()
        else server.end()
      parentPort?.close()
      for (const port of ports) port.close()
      return
    default:
      news satisfies never
  }
}

const ports: MessagePort[] = []
const fetches = new Map<number, { resolve: (bytes: Uint8Array) => void; reject: (error: Error) => void }>()
let lastFetch = 0

function listenTo(port: MessagePort): void {
  ports.push(port)
  port.on('message', (request: ForwardedRequest) => (device === 0 ? void early.push(request) : take(request)))
}

function settle(id: number, act: () => void): void {
  try {
    act()
    tell({ kind: 'done', id, error: undefined })
  } catch (error) {
    tell({ kind: 'done', id, error: messageOf(error) })
  }
}

function attach({ slot, what }: Extract<FilesNews, { kind: 'attach' }>): void {
  const server = what.kind === 'directory' ? openDirectory(slot, what) : openOverlay(slot, what)
  if (ownDevice !== undefined) server.setOwnDevice(ownDevice)
  servers.get(slot)?.end()
  servers.set(slot, server)
}

function openDirectory(slot: number, { directory, journal, isRestored }: SharedFiles): FileServer {
  const tree = new HostTree(slot, directory, (node) => forgetAttributes(device, { node, top: slot }))
  if (!isRestored) tree.keep(journal)
  else whenServing(slot, () => tree.resume(journal))
  return tree
}

/** What another process serves is ours when the session's device comes. */
function whenServing(slot: number, resume: () => void): void {
  if (device === 0) resuming.set(slot, resume)
  else resume()
}

function openOverlay(slot: number, { image, upper, work, journal, isRestored }: OverlayFiles): FileServer {
  const tree = new OverlayTree({
    slot,
    image,
    upper,
    work,
    isRestored,
    fetch: (ino, offset, count) => {
      const id = ++lastFetch
      const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
      fetches.set(id, { resolve, reject })
      tell({ kind: 'fetch', id, slot, ino, offset, count })
      return promise
    },
    readLater: (read) => tell({ kind: 'late', read: { slot, ...read } }),
    onRead: (bytes) => counters.read(slot, bytes, 0, true),
  })
  const fail = (error: unknown): void =>
    tell({ kind: 'error', text: `mount ${slot} cannot go on, and fails from now on: ${messageOf(error)}` })
  if (isRestored) whenServing(slot, () => tree.resume(journal, fail))
  else tree.keep(journal)
  return tree
}

function take({ slot, asRoot, bytes }: ForwardedRequest): void {
  const request = new FileRequest(bytes)
  if (request.opcode === OPCODE.FORGET) {
    servers.get(slot)?.forget(request.node, request.number(FORGET_IN.lookups))
    return
  }
  if (request.opcode === OPCODE.BATCH_FORGET) {
    forgetMany(request)
    return
  }
  const server = servers.get(slot)
  if (server === undefined) {
    send(request, -ERRNO.ESTALE)
    return
  }
  const act = (): number => (asRoot ? server.answerRoot(reply) : server.answer(request, reply))
  let waits: Promise<void> | undefined
  try {
    waits = asRoot ? undefined : server.prepare(request)
  } catch (error) {
    fail(request, error)
    return
  }
  if (waits === undefined) run(request, act)
  else
    waits.then(
      () => (servers.get(slot) === server ? run(request, act) : send(request, -ERRNO.ESTALE)),
      (error: unknown) => fail(request, error),
    )
}

function forgetMany(request: FileRequest): void {
  const count = request.word(BATCH_FORGET_IN.count)
  for (let index = 0; index < count; index++) {
    const at = BATCH_FORGET_IN.size + index * BATCH_FORGET_IN.pair
    servers.get(request.topAt(at))?.forget(request.nodeAt(at), request.number(at + 8))
  }
}

function run(request: FileRequest, act: () => number): void {
  let result: number
  try {
    result = act()
  } catch (error) {
    fail(request, error)
    return
  }
  if (result !== ANSWERED_ELSEWHERE) send(request, result)
}

function fail(request: FileRequest, error: unknown): void {
  const known = error instanceof TooLarge ? ERRNO.EFBIG : errnoOf(error)
  if (known === undefined) tellFailed(request, error)
  send(request, -(known ?? ERRNO.EIO))
}

function send(request: FileRequest, result: number): void {
  if (isLeft) return
  const [length, errno] = result < 0 ? [0, -result] : [result, 0]
  const message = reply.message(request.uniqueLow, request.uniqueHigh, length, errno)
  try {
    sendFuse(device, message.address, message.length)
  } catch (error) {
    tellFailed(request, error)
  }
}

/** Numbers of operations are those of docs/formats/fuse-wire.md, nodes those of `nydusd --log-level trace`. */
function tellFailed({ opcode, node, nodeTop }: FileRequest, error: unknown): void {
  tell({ kind: 'error', text: `operation ${opcode} on node ${node} of mount ${nodeTop}: ${messageOf(error)}` })
}

checkBuild(build)
answerReportsAlone()
prepareCredentials()
tell({ kind: 'ready' })
parentPort?.on('message', takeNews)
