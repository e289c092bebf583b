import { lstatSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { CallsUnderWay } from './call.ts'
import { type RawService, registerRaw, type Service } from './handlers.ts'
import { CHANNEL_OPTIONS } from './methods.ts'
import { listen, type SocketOptions } from './socket.ts'
import { serveUnary, type UnaryMethod } from './unary.ts'

export interface ServeOptions extends SocketOptions {
  readonly services: readonly Service[]
  /** Services that are passed on as bytes. */
  readonly raw: readonly RawService[]
  /** Calls of services wait for it: a client is connected while we start, where it would back off for seconds from a socket that nobody answers. */
  readonly ready?: Promise<void>
}

export interface RunningServer {
  /**
   * Takes nobody new, waits for the calls under way, then aborts them. `graceMs` is how long each of the two may take. Clients such as containerd keep their connections open
   * for ever, so these are cut in the end.
   */
  stop(graceMs: number): Promise<void>
}

/** After the last answer: it has to leave the process. */
const FLUSH_MS = 250

/** Serves gRPC on a Unix socket. Errors are those of `listen`. */
export async function serve(options: ServeOptions): Promise<RunningServer> {
  const server = new Server(CHANNEL_OPTIONS)
  const calls = new CallsUnderWay()
  const registrar = options.ready === undefined ? server : lateServer(server, options.ready)
  const unary = new Map<string, UnaryMethod>()
  for (const one of options.services) one.register({ server: registrar, unary, calls })
  serveUnary(server, unary, { calls, ready: options.ready })
  if (options.raw.length > 0) registerRaw(server, options.raw)
  const connections = server.createConnectionInjector(ServerCredentials.createInsecure())
  // With its counts switched off, grpc-js does not know its sessions: we end them.
  const sockets = new Set<Socket>()
  const listener = await listen(options, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    connections.injectConnection(socket)
  })
  const { ino } = lstatSync(options.path)
  const stop = async (graceMs: number): Promise<void> => {
    // Its name goes first: who comes now must find nobody, or our successor. A successor's socket stays.
    if (lstatSync(options.path, { throwIfNoEntry: false })?.ino === ino) rmSync(options.path, { force: true })
    listener.close()
    await calls.idle(graceMs)
    calls.abort()
    await calls.idle(graceMs)
    // Tells the clients; when they have their answers, most of them hang up.
    server.tryShutdown(() => {})
    const timer = new AbortController()
    const flushed = setTimeout(FLUSH_MS, undefined, { signal: timer.signal }).catch(() => {})
    await Promise.race([
      flushed,
      Promise.all([...sockets].map((socket) => new Promise((resolve) => socket.once('close', resolve)))),
    ])
    timer.abort()
    server.forceShutdown()
    for (const socket of sockets) socket.destroy()
  }
  let stopped: Promise<void> | undefined
  return { stop: (graceMs) => (stopped ??= stop(graceMs)) }
}

/** The same server, but what is registered runs when `ready` says so; never when that fails, and then the server is stopped. */
function lateServer(server: Server, ready: Promise<void>): Server {
  const late = Object.create(server) as Server // all of it, but for one method
  late.register = (name, run, ...rest) => {
    const waits = (...args: unknown[]): void =>
      void ready.then(
        () => Reflect.apply(run, undefined, args),
        () => undefined,
      )
    return server.register(name, waits, ...rest)
  }
  return late
}
