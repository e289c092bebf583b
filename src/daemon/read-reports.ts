import { messageOf } from './errors.ts'
import type { EventLog } from './events.ts'
import type { MountedImage } from './image.ts'
import type { LateReadEnd } from './late-reads.ts'
import type { Log } from './log.ts'
import type { FileSystemCounters } from './metrics.ts'
import type { Mount } from './mount-opener.ts'
import type { LateRead } from './transports/fuse-handler.ts'

/** Counts reads that had to wait for their data, and tells of those that failed. */
export class ReadReports {
  readonly #counters: FileSystemCounters
  readonly #events: EventLog
  readonly #log: Log
  readonly #cacheWarned = new WeakSet<MountedImage>()

  constructor(counters: FileSystemCounters, events: EventLog, log: Log) {
    this.#counters = counters
    this.#events = events
    this.#log = log
  }

  /** `mount` is undefined when it was unmounted meanwhile. */
  done(mount: Mount | undefined, { slot, ino }: LateRead, end: LateReadEnd): void {
    mount?.image.files?.read(ino, end.error === undefined ? end.bytes : -1)
    if (end.error === undefined) {
      this.#counters.read(slot, end.bytes, end.latencyMs * 1000, false)
      if (mount !== undefined) this.#warnOfCache(mount)
      return
    }
    this.#counters.readFailed(slot)
    const text = `cannot read inode ${ino} of ${mount?.path ?? 'an unmounted image'}: ${messageOf(end.error)}`
    this.#events.add(text)
    this.#log.error(text)
  }

  /** Says once a mount that its cache takes no more: nobody would notice otherwise, since reads go on. */
  #warnOfCache({ image, path }: Mount): void {
    const directory = image.settings.cacheDirectory
    if (directory === undefined || image.reader.counters.chunksUncached === 0 || this.#cacheWarned.has(image)) return
    this.#cacheWarned.add(image)
    this.#log.warn(
      `the cache of ${path} in ${directory} takes no more: reads go on without it, and what is read again is fetched again; free space there, or name another directory`,
    )
  }
}
