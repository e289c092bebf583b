/** Lists of files that are wanted first, by image: they come before the image does, and each counts for one mount. */
import { SnapshotterError } from '../errors.ts'

const MAX_IMAGES = 10_000
const MAX_PATHS = 65_536
const MAX_LIST_BYTES = 1 << 20

export class PrefetchLists {
  readonly #lists = new Map<string, readonly string[]>()

  /** `list` has absolute paths with commas between them. The oldest are forgotten when there are too many. Throws SnapshotterError 'INVALID_ARGUMENT'. */
  put(image: string, list: string): void {
    const bad = (why: string): SnapshotterError =>
      new SnapshotterError('INVALID_ARGUMENT', `the prefetch list of ${image.slice(0, 200)} ${why}`)
    if (list.length > MAX_LIST_BYTES) throw bad(`has more than ${MAX_LIST_BYTES} characters`)
    const paths = list
      .split(/[,\n]/)
      .map((path) => path.trim())
      .filter((path) => path !== '')
    if (paths.length > MAX_PATHS) throw bad(`has more than ${MAX_PATHS} paths`)
    const odd = paths.find((path) => !path.startsWith('/') || path.includes('\0'))
    if (odd !== undefined) throw bad(`has ${JSON.stringify(odd.slice(0, 200))}, which is no absolute path`)
    this.#lists.delete(image)
    this.#lists.set(image, paths)
    const [oldest] = this.#lists.keys()
    if (this.#lists.size > MAX_IMAGES && oldest !== undefined) this.#lists.delete(oldest)
  }

  /** The list of an image, once. */
  take(image: string): readonly string[] {
    const list = this.#lists.get(image) ?? []
    this.#lists.delete(image)
    return list
  }
}
