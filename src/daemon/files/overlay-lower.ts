import { type HotImage, HotReader } from '../../engine/index.ts'
import { TYPE, type WireAttributes } from '../../kernel/index.ts'
import { Attributes, type Bootstrap, ChunkSpan, type Ino, openBootstrap, RafsError } from '../../rafs/index.ts'

/** What the lower layer of an overlay is made of, as serving threads get images too. */
export interface LowerImage {
  readonly bytes: Uint8Array<SharedArrayBuffer>
  readonly inlinedBlobId: string | undefined
  readonly hot: HotImage
}

/** One name of a file of the image. */
export interface LowerName {
  readonly directory: Ino
  readonly name: Uint8Array
}

const OWNER = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }

/** The image below an overlay. Names come with their NULs, as the kernel sends them. Throws RafsError where the bootstrap is damaged. */
export class OverlayLower {
  readonly #bootstrap: Bootstrap
  readonly #hot: HotReader
  readonly #spans: ChunkSpan[] = Array.from({ length: 64 }, () => new ChunkSpan())
  /** Of the file that was looked at last. */
  readonly of = new Attributes()
  #links: Map<Ino, LowerName[]> | undefined
  readonly #directories = new Map<Ino, LowerName>()

  constructor(image: LowerImage) {
    this.#bootstrap = openBootstrap(image.bytes, { inlinedBlobId: image.inlinedBlobId })
    this.#hot = new HotReader(image.hot)
  }

  get root(): Ino {
    return this.#bootstrap.root
  }

  /** The file of a name; a deletion mark (device 0:0) that a layer left in the image is none. */
  lookup(directory: Ino, name: Uint8Array): Ino | undefined {
    const found = this.#bootstrap.lookup(directory, name.subarray(0, -1))
    return found === undefined || this.#isDeletion(found) ? undefined : found
  }

  #isDeletion(ino: Ino): boolean {
    this.#bootstrap.attributes(ino, this.of)
    return (this.of.mode & TYPE.MASK) === TYPE.CHARACTER && this.of.rdev === 0
  }

  /** Kind of the file; its attributes stand in {@link of} then, with the owner that is shown. */
  look(ino: Ino): number {
    this.#bootstrap.attributes(ino, this.of)
    if (!this.#bootstrap.explicitOwners) {
      this.of.uid = OWNER.uid
      this.of.gid = OWNER.gid
    }
    return this.of.mode & TYPE.MASK
  }

  /** All but the number, of the file in {@link of}. */
  describe(into: WireAttributes, nlink: number): void {
    const { of } = this
    into.size(of.size, of.blocks)
    into.owner(of.mode, nlink, of.uid, of.gid, of.rdev)
    into.time('atime', 0, 0)
    into.time('mtime', of.mtime, of.mtimeNsec)
    into.time('ctime', 0, 0)
  }

  readlink(ino: Ino): Uint8Array {
    return this.#bootstrap.readlink(ino)
  }

  xattrs(ino: Ino): Array<{ readonly name: Uint8Array; readonly value: Uint8Array }> {
    return this.#bootstrap.hasXattrs ? this.#bootstrap.xattrs(ino) : []
  }

  list(directory: Ino, visit: (name: Uint8Array, ino: Ino, type: number) => void): void {
    this.#bootstrap.list(directory, 0, (name, ino, type) => {
      if (!(type === CHARACTER_DEVICE && this.#isDeletion(ino))) visit(name, ino, type)
      return true
    })
  }

  /** Reads what is at hand to an address; undefined when some of it must be fetched. */
  read(ino: Ino, offset: number, count: number, address: number): number | undefined {
    const spans = this.#bootstrap.chunks(ino, offset, count, this.#spans)
    let bytes = 0
    for (let index = 0; index < spans; index++) bytes += this.#spans[index].length
    return bytes === 0 || this.#hot.read(this.#spans, spans, address) ? bytes : undefined
  }

  /** All names of a file that has several. The first call walks through the image. */
  names(ino: Ino): readonly LowerName[] {
    this.#links ??= this.#findLinks()
    return this.#links.get(ino) ?? []
  }

  /** Where a directory is; undefined for the root. Only those are known that a file of {@link names} lies in or below. */
  place(directory: Ino): LowerName | undefined {
    return this.#directories.get(directory)
  }

  /** Time and memory are bounded by the bootstrap's length, whatever its directories say. */
  #findLinks(): Map<Ino, LowerName[]> {
    const links = new Map<Ino, LowerName[]>()
    let count = 0
    const open = [this.#bootstrap.root]
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      const at = directory
      this.#bootstrap.list(at, 0, (name, ino, type) => {
        const here = { directory: at, name: Buffer.concat([name, NUL]) }
        if (++count > this.#bootstrap.entryLimit)
          throw new RafsError(
            'BAD_DIRECTORY',
            `inode ${at}: the bootstrap has no room for so many names; it is crafted`,
          )
        if (type === DIRECTORY) {
          if (ino === this.root || this.#directories.has(ino))
            throw new RafsError(
              'BAD_DIRECTORY',
              `inode ${ino}: a directory that is met twice; the bootstrap is crafted`,
            )
          this.#directories.set(ino, here)
          open.push(ino)
          return true
        }
        this.#bootstrap.attributes(ino, this.of)
        if (this.of.nlink < 2) return true
        const known = links.get(ino)
        if (known === undefined) links.set(ino, [here])
        else known.push(here)
        return true
      })
    }
    return links
  }
}

const [CHARACTER_DEVICE, DIRECTORY] = [2, 4]
const NUL = Buffer.alloc(1)
