import { type FuseAttributes, type FuseReply, type FuseRequest, OPCODE } from '../../kernel/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import type { FileCounters } from '../file-counters.ts'
import type { ListingHabits } from './listing-habits.ts'

/** The type of a directory in a listing; the others are those of `readdir`(3) too. */
export const DIRECTORY_TYPE = 4
/** Cookies of `.` and `..`; an image's own cookies start behind them. */
const DOT = 1
const DOT_DOT = 2
const DOTS = [Buffer.from('.'), Buffer.from('..')] as const

/** What of an image is listed. */
export interface ListedImage {
  readonly slot: number
  readonly bootstrap: Bootstrap
  readonly files: FileCounters | undefined
}

/** Answers READDIR and READDIRPLUS for the images of one thread; allocates nothing for a name. */
export class DirectoryListing<Image extends ListedImage> {
  readonly #habits: ListingHabits
  readonly #attributesOf: (image: Image, ino: number) => FuseAttributes
  #image: Image | undefined
  #reply: FuseReply | undefined
  #isPlus = false
  /** Files that may still be left to a LOOKUP. */
  #leaveOut = 0

  constructor(habits: ListingHabits, attributesOf: (image: Image, ino: number) => FuseAttributes) {
    this.#habits = habits
    this.#attributesOf = attributesOf
  }

  /** Length of the body. */
  answer(image: Image, ino: number, request: FuseRequest, reply: FuseReply): number {
    const isPlus = request.opcode === OPCODE.READDIRPLUS
    const from = request.offset
    reply.startList(request.count)
    for (let dot = from + 1; dot <= DOT_DOT; dot++) {
      const name = DOTS[dot - 1]
      if (!reply.fits(name.length, isPlus)) return reply.endList()
      const target = dot === DOT ? ino : image.bootstrap.parent(ino)
      reply.add(name, target, image.slot, DIRECTORY_TYPE, dot, isPlus, undefined)
    }
    const mayLeaveOut = isPlus ? this.#habits.mayLeaveOut(request.pid, from === 0) : 0
    this.#image = image
    this.#reply = reply
    this.#isPlus = isPlus
    this.#leaveOut = mayLeaveOut
    image.bootstrap.list(ino, Math.max(0, from - DOT_DOT), this.#visit)
    if (this.#leaveOut < mayLeaveOut) this.#habits.leftOut(request.pid)
    return reply.endList()
  }

  readonly #visit = (name: Uint8Array, ino: number, type: number, cookie: number): boolean => {
    const image = this.#image as Image // both are set by `answer`, which calls this
    const reply = this.#reply as FuseReply
    const isPlus = this.#isPlus
    if (!reply.fits(name.length, isPlus)) return false
    image.files?.seen(ino)
    const isWhole = isPlus && (type === DIRECTORY_TYPE || this.#leaveOut === 0)
    if (isPlus && !isWhole) this.#leaveOut--
    const attributes = isWhole ? this.#attributesOf(image, ino) : undefined
    reply.add(name, ino, image.slot, type, cookie + DOT_DOT, isPlus, attributes)
    return true
  }
}
