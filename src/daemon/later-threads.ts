import { messageOf } from './errors.ts'

/** What people read when a thread that a daemon starts later, to do `what`, cannot be: most often a package upgrade has replaced its file. */
export function noMoreThreads(what: string, why: unknown): string {
  return `no thread more can be started to ${what}: ${messageOf(why)}; were nydusd's files replaced while it runs? It goes on with the threads it has; restart it, or have the new one take over (docs/troubleshooting.md)`
}
