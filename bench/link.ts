import { connect, createServer, type Server, type Socket } from 'node:net'
import { Direction, Flow } from './link-direction.ts'

/** A network between clients and one server: one shared link with its bandwidth and its delay. */
export interface LinkOptions {
  /** Bits a second in each direction; all connections share them, fairly. */
  readonly bitsPerSecond: number
  /** Milliseconds from one end to the other and back. */
  readonly roundTripMs: number
  readonly target: { readonly host: string; readonly port: number }
}

/** What went over the link so far. */
export interface LinkCounters {
  connections: number
  bytesUp: number
  bytesDown: number
}

/** What a sender may have waiting at the least: enough that it is not the sender that the link waits for when this process gets no turn for a while. */
const WINDOW_BYTES = 1 << 20
/** The loop sleeps about this long when the link is busy; pieces due within it go out together. */
const TICK_MS = 1

/**
 * A simulated network link as a TCP proxy on a free loopback port. A new connection costs a round trip before its first byte (the handshake),
 * each request another; bandwidth is shared among all connections in each direction. There is no loss and no slow start.
 */
export class Link {
  readonly counters: LinkCounters = { connections: 0, bytesUp: 0, bytesDown: 0 }
  readonly #options: LinkOptions
  readonly #up: Direction
  readonly #down: Direction
  readonly #sockets = new Set<Socket>()
  readonly #server: Server
  #timer: NodeJS.Timeout | undefined

  private constructor(options: LinkOptions) {
    this.#options = options
    this.#up = new Direction(options.bitsPerSecond, options.roundTripMs / 2)
    this.#down = new Direction(options.bitsPerSecond, options.roundTripMs / 2)
    this.#server = createServer({ noDelay: true, pauseOnConnect: true, allowHalfOpen: true }, (client) =>
      this.#serve(client),
    )
  }

  static async start(options: LinkOptions): Promise<Link> {
    const link = new Link(options)
    await new Promise<void>((resolve, reject) => {
      link.#server.once('error', reject)
      link.#server.listen(0, '127.0.0.1', resolve)
    })
    return link
  }

  get port(): number {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('the link is closed')
    return address.port
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer)
    for (const socket of this.#sockets) socket.destroy()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  #serve(client: Socket): void {
    this.counters.connections++
    const server = connect({ ...this.#options.target, noDelay: true, allowHalfOpen: true })
    const windowBytes = Math.max(WINDOW_BYTES, (this.#options.bitsPerSecond / 8000) * this.#options.roundTripMs * 2)
    const up = new Flow(client, server, windowBytes)
    const down = new Flow(server, client, windowBytes)
    this.#up.flows.add(up)
    this.#down.flows.add(down)
    for (const [socket, from, to] of [
      [client, up, down],
      [server, down, up],
    ] as const) {
      this.#sockets.add(socket)
      socket.on('data', (bytes) => {
        from.accept(bytes, performance.now())
        this.#wake()
      })
      socket.on('end', () => this.#end(from))
      // What the other side sent and the link still carries has nowhere to go; what this side sent still arrives.
      socket.on('error', () => to.drop())
      socket.on('close', () => {
        this.#sockets.delete(socket)
        to.drop()
        this.#end(from)
      })
    }
    setTimeout(() => client.resume(), this.#options.roundTripMs)
  }

  #end(flow: Flow): void {
    flow.ended = true
    this.#wake()
  }

  #wake(): void {
    this.#timer ??= setTimeout(() => this.#run(), TICK_MS)
  }

  #run(): void {
    this.#timer = undefined
    const nowMs = performance.now()
    this.counters.bytesUp += this.#up.run(nowMs)
    this.counters.bytesDown += this.#down.run(nowMs)
    const busy = [...this.#up.flows, ...this.#down.flows].some(
      (flow) => flow.waiting.length > 0 || flow.flying.length > 0,
    )
    if (busy) this.#wake()
  }
}
