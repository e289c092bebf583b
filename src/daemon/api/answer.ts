import { DaemonError, messageOf } from '../errors.ts'
import { BodyError } from './bodies.ts'

/** What a route answers: a JSON body, a text of another type, or nothing. */
export interface Answer {
  readonly status: number
  readonly body?: unknown
  readonly text?: { readonly type: string; readonly content: string }
}

/** Names that upstream's error texts begin with, one a route. */
export type Wrapper =
  | 'DaemonInfo'
  | 'Configure'
  | 'FsBackendInfo'
  | 'Events'
  | 'Upgrade'
  | 'Mount'
  | 'GlobalMetrics'
  | 'FsFilesMetrics'
  | 'Pattern'
  | 'BackendMetrics'
  | 'BlobcacheMetrics'
  | 'InflightMetrics'
  | 'CreateBlobObject'
  | 'DeleteBlobObject'
  | 'DeleteBlobFile'

export const NO_CONTENT: Answer = { status: 204 }

/** `code` is always this; the message is what programs read. */
export function refusal(status: number, message: string): Answer {
  return { status, body: { code: 'UNDEFINED', message } }
}

export const BAD_REQUEST = refusal(400, 'BadRequest')
export const NO_ROUTE = refusal(404, 'NoRoute')

/** 404 of the metrics: there is no counter of that id, or more than one without an id. */
export function noCounter(wrapper: Wrapper): Answer {
  return refusal(404, `${wrapper}(Metrics(Stats(NoCounter)))`)
}

/** Words an error as upstream does: the text is part of the API. */
export function failureAnswer(error: unknown, wrapper: Wrapper): Answer {
  if (error instanceof BodyError) return refusal(400, error.wire)
  if (!(error instanceof DaemonError)) return refusal(500, `${wrapper}(${other(messageOf(error))})`)
  if (error.code === 'BAD_STATE') return refusal(400, `${wrapper}(${error.wire ?? other(error.message)})`)
  if (error.code === 'NOT_READY') return refusal(503, `${wrapper}(DaemonAbnormal(NotReady))`)
  if (error.code === 'HANDOVER')
    return refusal(500, `${wrapper}(DaemonAbnormal(UpgradeManager(${JSON.stringify(error.wire ?? error.message)})))`)
  const text = other(error.wire ?? error.message)
  if (wrapper === 'Mount') return refusal(500, `Mount(MountFilesystem(${text}))`)
  if (wrapper === 'FsBackendInfo') return refusal(500, `FsBackendInfo(Metrics(Daemon(${text})))`)
  return refusal(500, `${wrapper}(DaemonAbnormal(${text}))`)
}

function other(text: string): string {
  return `Other(${JSON.stringify(text)})`
}
