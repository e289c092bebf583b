/** Processes that are remembered at once; others take their places. */
const SLOTS = 1024
/** Files of a process's first listing that are left to a LOOKUP. */
const PROBES = 4

/** What a process does with listings; nothing is known at first. */
const PROBED = 1
const LOOKS_UP = 2
const TAKES_NAMES = 3

/**
 * What processes do with the directories they list. A listing can give the kernel every file's attributes, so that nobody need ask for them; but it makes an inode of each, which takes longer than all the rest when
 * nobody looks. So the first listing of a process leaves a few files out. One that looks such a file up gets everything from then on; one that lists its next directory without gets names and types, until it looks
 * something up. Directories are always given whole: who lists them goes into them.
 *
 * All threads of a session share it, without locks: a lost note costs a few requests.
 */
export class ListingHabits {
  /** A word a slot: the process's number and, in the two lowest bits, its habit. */
  readonly words: Int32Array<SharedArrayBuffer>

  constructor(
    words: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(SLOTS * Int32Array.BYTES_PER_ELEMENT)),
  ) {
    this.words = words
  }

  /** How many files a listing of this process may leave to a LOOKUP. `isFirst`: it begins a directory. */
  mayLeaveOut(pid: number, isFirst: boolean): number {
    if (pid === 0) return 0 // of a namespace that we cannot see
    const habit = this.#habit(pid)
    if (habit === 0) return isFirst ? PROBES : 0
    if (habit === PROBED && isFirst) this.#learn(pid, TAKES_NAMES)
    return habit === TAKES_NAMES || (habit === PROBED && isFirst) ? Number.POSITIVE_INFINITY : 0
  }

  /** A listing of a process of whom nothing was known left files out. */
  leftOut(pid: number): void {
    if (this.#habit(pid) === 0) this.#learn(pid, PROBED)
  }

  /** The process asked for a file by its name. */
  lookedUp(pid: number): void {
    if (pid !== 0 && this.#habit(pid) !== LOOKS_UP) this.#learn(pid, LOOKS_UP)
  }

  #habit(pid: number): number {
    const word = this.words[pid % SLOTS] ?? 0
    return word >>> 2 === pid ? word & 3 : 0
  }

  #learn(pid: number, habit: number): void {
    this.words[pid % SLOTS] = (pid << 2) | habit
  }
}
