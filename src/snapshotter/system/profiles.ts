import type { Session } from 'node:inspector/promises'
import type { ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { getHeapSpaceStatistics, getHeapStatistics } from 'node:v8'
import { type Handle, sendText } from './http-server.ts'

const PREFIX = '/debug/pprof/'
const DEFAULT_SECONDS = 30
const MAX_SECONDS = 600
const JSON_TYPE = 'application/json'
const TEXT = 'text/plain; charset=utf-8'

const INDEX = `Profiles of this process, for Chrome's developer tools:

profile?seconds=30   processors (.cpuprofile)
heap                 a snapshot of the heap (.heapsnapshot); heap?debug=1 its sizes
allocs?seconds=30    what was allocated meanwhile (.heapprofile)
trace?seconds=1      events of the runtime, for chrome://tracing
goroutine            what the event loop waits for
cmdline              how the process was started
`

/** One at a time: they would measure each other. */
let isBusy = false

/** Profiles where Go programs have them, in the forms of this runtime. */
export const handleProfiles: Handle = async (request, response, signal) => {
  request.resume()
  const url = URL.parse(request.url ?? '/', 'http://profiles')
  const name = url?.pathname.startsWith(PREFIX) === true ? url.pathname.slice(PREFIX.length) : undefined
  const seconds = Number(url?.searchParams.get('seconds') ?? DEFAULT_SECONDS)
  if (request.method !== 'GET') return sendText(response, 405, TEXT, 'only GET\n')
  if (!(seconds >= 0 && seconds <= MAX_SECONDS))
    return sendText(response, 400, TEXT, `seconds must be a number up to ${MAX_SECONDS}\n`)
  switch (name) {
    case '':
      return sendText(response, 200, TEXT, INDEX)
    case 'cmdline':
      return sendText(response, 200, TEXT, process.argv.join('\0'))
    case 'goroutine':
      return sendText(response, 200, TEXT, waitingText())
    case 'heap':
      if (url?.searchParams.get('debug') === '1') return sendText(response, 200, TEXT, heapText())
      return await alone(response, sendHeapSnapshot)
    case 'profile':
      return await alone(response, (session) => sendCpuProfile(session, response, seconds, signal))
    case 'allocs':
      return await alone(response, (session) => sendAllocations(session, response, seconds, signal))
    case 'trace':
      return await alone(response, (session) => sendTrace(session, response, seconds, signal))
    case undefined:
    default:
      return sendText(response, 404, TEXT, `there is no such profile\n\n${INDEX}`)
  }
}

async function alone(
  response: ServerResponse,
  act: (session: Session, response: ServerResponse) => Promise<void>,
): Promise<void> {
  if (isBusy) return sendText(response, 503, TEXT, 'another profile is taken; try again\n')
  isBusy = true
  const inspector = await import('node:inspector/promises')
  const session = new inspector.Session()
  session.connect()
  try {
    await act(session, response)
  } finally {
    session.disconnect()
    isBusy = false
  }
}

/** Ends early, without an error, when nobody wants the result any more. */
async function during(seconds: number, signal: AbortSignal): Promise<void> {
  await sleep(seconds * 1000, undefined, { signal }).catch(() => undefined)
}

async function sendCpuProfile(
  session: Session,
  response: ServerResponse,
  seconds: number,
  signal: AbortSignal,
): Promise<void> {
  await session.post('Profiler.enable')
  await session.post('Profiler.start')
  await during(seconds, signal)
  const { profile } = await session.post('Profiler.stop')
  sendText(response, 200, JSON_TYPE, JSON.stringify(profile))
}

async function sendAllocations(
  session: Session,
  response: ServerResponse,
  seconds: number,
  signal: AbortSignal,
): Promise<void> {
  await session.post('HeapProfiler.enable')
  await session.post('HeapProfiler.startSampling')
  await during(seconds, signal)
  const { profile } = await session.post('HeapProfiler.stopSampling')
  sendText(response, 200, JSON_TYPE, JSON.stringify(profile))
}

/** Piece by piece: it is as large as the heap. */
async function sendHeapSnapshot(session: Session, response: ServerResponse): Promise<void> {
  response.writeHead(200, { 'Content-Type': JSON_TYPE })
  session.on('HeapProfiler.addHeapSnapshotChunk', ({ params }) => void response.write(params.chunk))
  await session.post('HeapProfiler.takeHeapSnapshot')
  response.end()
}

async function sendTrace(
  session: Session,
  response: ServerResponse,
  seconds: number,
  signal: AbortSignal,
): Promise<void> {
  const events: unknown[] = []
  const complete = Promise.withResolvers<void>()
  session.on('NodeTracing.dataCollected', ({ params }) => void events.push(...params.value))
  session.on('NodeTracing.tracingComplete', () => complete.resolve())
  await session.post('NodeTracing.start', { traceConfig: { includedCategories: ['node', 'v8'] } })
  await during(Math.min(seconds, DEFAULT_SECONDS), signal)
  await session.post('NodeTracing.stop')
  await complete.promise
  sendText(response, 200, JSON_TYPE, JSON.stringify({ traceEvents: events }))
}

function waitingText(): string {
  const counts = new Map<string, number>()
  for (const name of process.getActiveResourcesInfo()) counts.set(name, (counts.get(name) ?? 0) + 1)
  return [...counts].map(([name, count]) => `${count}\t${name}\n`).join('')
}

function heapText(): string {
  const all = Object.entries({ ...process.memoryUsage(), ...getHeapStatistics() }).map(
    ([name, value]) => `${name}: ${value}`,
  )
  const spaces = getHeapSpaceStatistics().map(
    (space) => `${space.space_name}: ${space.space_used_size} of ${space.space_size}`,
  )
  return `${[...all, ...spaces].join('\n')}\n`
}
