import { EventEmitter } from 'node:events'

/** What becomes of daemons: it serves (again), it died, it was ended on purpose. */
export class DaemonEvents extends EventEmitter<{
  RUNNING: [id: string, version: string]
  DIED: [id: string, version: string]
  DESTROYED: [id: string, version: string]
  /** It lives and does not answer; what is done about it is the policy's. */
  HUNG: [id: string, version: string]
  /** An image can be read; milliseconds since it was asked for. */
  mounted: [reference: string, key: string, elapsedMs: number]
}> {}
