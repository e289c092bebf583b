/** Writes bolt databases from the beginning, page by page. Source: docs/formats/bolt.md. */
import { BRANCH, BUCKET, checksum, IS_BUCKET, LEAF, MAGIC, META, PAGE, PAGE_FLAG, VERSION } from './layout.ts'

const PAGE_SIZE = 4096
/** Buckets without buckets in them, and not larger, lie in the value itself, as the original has it. */
const MAX_INLINE = PAGE_SIZE / 4

/** A bucket to be written; keys may come in any order. */
export interface BoltTree {
  readonly sequence?: number
  readonly entries: Iterable<readonly [key: Uint8Array, value: Uint8Array | BoltTree]>
}

interface Item {
  readonly key: Uint8Array
  readonly value: Uint8Array
  /** Of a leaf. */
  readonly flags: number
}

interface Child {
  readonly key: Uint8Array
  readonly page: number
}

/** The bytes of a database. `transaction` is the number of its last change; the one before is in the other head. */
export function boltBytes(root: BoltTree, transaction: number): Buffer {
  return new Writer().whole(root, transaction)
}

class Writer {
  /** From page 2 on. */
  readonly #pages: Buffer[] = []
  #next = 2

  whole(root: BoltTree, transaction: number): Buffer {
    const top = this.#tree(this.#items(root))
    const freelist = this.#add(page(PAGE_FLAG.freelist, 0, PAGE.size))
    const meta = (id: number) =>
      metaPage(id, { root: top, freelist, highWater: this.#next }, transaction - ((transaction ^ id) & 1))
    const [first, second] = [meta(0), meta(1)]
    return Buffer.concat([first, second, ...this.#pages])
  }

  #items(tree: BoltTree): Item[] {
    const items = Array.from(tree.entries, ([key, value]) =>
      value instanceof Uint8Array ? { key, value, flags: 0 } : { key, value: this.#bucket(value), flags: IS_BUCKET },
    )
    return items.sort((a, b) => Buffer.compare(a.key, b.key))
  }

  /** A bucket's value. */
  #bucket(tree: BoltTree): Buffer {
    const items = this.#items(tree)
    const head = Buffer.alloc(BUCKET.size)
    head.writeBigUInt64LE(BigInt(tree.sequence ?? 0), BUCKET.sequence)
    const isPlain = items.every(({ flags }) => flags === 0)
    if (isPlain && leafSize(items) <= MAX_INLINE) return Buffer.concat([head, leafPage(items)])
    head.writeBigUInt64LE(BigInt(this.#tree(items)), BUCKET.root)
    return head
  }

  /** Leaves, branches over them, and so on until there is one page: its number. */
  #tree(items: readonly Item[]): number {
    let level: Child[] = groups(items, (item) => LEAF.size + item.key.length + item.value.length).map((group) => ({
      key: group[0]?.key ?? new Uint8Array(),
      page: this.#add(leafPage(group)),
    }))
    while (level.length > 1)
      level = groups(level, ({ key }) => BRANCH.size + key.length).map((group) => ({
        key: group[0]?.key ?? new Uint8Array(),
        page: this.#add(branchPage(group)),
      }))
    return level[0]?.page ?? 0
  }

  #add(content: Buffer): number {
    const id = this.#next
    const pages = Math.ceil(content.length / PAGE_SIZE)
    content.writeBigUInt64LE(BigInt(id), PAGE.id)
    content.writeUInt32LE(pages - 1, PAGE.overflow)
    this.#pages.push(content, Buffer.alloc(pages * PAGE_SIZE - content.length))
    this.#next += pages
    return id
  }
}

/** Cuts a list into pages; one group at least. None has a single member that could have joined the one before, as a branch of one is no branch. */
function groups<T>(list: readonly T[], size: (item: T) => number): T[][] {
  const groups: T[][] = []
  let group: T[] = []
  let used: number = PAGE.size
  for (const item of list) {
    if (group.length > 1 && used + size(item) > PAGE_SIZE) {
      groups.push(group)
      group = []
      used = PAGE.size
    }
    group.push(item)
    used += size(item)
  }
  const before = groups.at(-1)
  if (group.length === 1 && before !== undefined) before.push(...group)
  else groups.push(group)
  return groups
}

function leafSize(items: readonly Item[]): number {
  return items.reduce<number>((sum, { key, value }) => sum + LEAF.size + key.length + value.length, PAGE.size)
}

function page(flags: number, count: number, size: number): Buffer {
  const bytes = Buffer.alloc(size)
  bytes.writeUInt16LE(flags, PAGE.flags)
  bytes.writeUInt16LE(count, PAGE.count)
  return bytes
}

function leafPage(items: readonly Item[]): Buffer {
  const bytes = page(PAGE_FLAG.leaf, items.length, leafSize(items))
  let end = PAGE.size + items.length * LEAF.size
  for (const [i, { key, value, flags }] of items.entries()) {
    const at = PAGE.size + i * LEAF.size
    bytes.writeUInt32LE(flags, at + LEAF.flags)
    bytes.writeUInt32LE(end - at, at + LEAF.position)
    bytes.writeUInt32LE(key.length, at + LEAF.keySize)
    bytes.writeUInt32LE(value.length, at + LEAF.valueSize)
    bytes.set(key, end)
    bytes.set(value, end + key.length)
    end += key.length + value.length
  }
  return bytes
}

function branchPage(children: readonly Child[]): Buffer {
  const size = children.reduce<number>((sum, { key }) => sum + BRANCH.size + key.length, PAGE.size)
  const bytes = page(PAGE_FLAG.branch, children.length, size)
  let end = PAGE.size + children.length * BRANCH.size
  for (const [i, { key, page: id }] of children.entries()) {
    const at = PAGE.size + i * BRANCH.size
    bytes.writeUInt32LE(end - at, at + BRANCH.position)
    bytes.writeUInt32LE(key.length, at + BRANCH.keySize)
    bytes.writeBigUInt64LE(BigInt(id), at + BRANCH.page)
    bytes.set(key, end)
    end += key.length
  }
  return bytes
}

function metaPage(
  id: number,
  pages: { readonly root: number; readonly freelist: number; readonly highWater: number },
  transaction: number,
): Buffer {
  const bytes = page(PAGE_FLAG.meta, 0, PAGE_SIZE)
  bytes.writeBigUInt64LE(BigInt(id), PAGE.id)
  const meta = bytes.subarray(PAGE.size)
  meta.writeUInt32LE(MAGIC, META.magic)
  meta.writeUInt32LE(VERSION, META.version)
  meta.writeUInt32LE(PAGE_SIZE, META.pageSize)
  meta.writeBigUInt64LE(BigInt(pages.root), META.root)
  meta.writeBigUInt64LE(BigInt(pages.freelist), META.freelist)
  meta.writeBigUInt64LE(BigInt(pages.highWater), META.highWater)
  meta.writeBigUInt64LE(BigInt(transaction), META.transaction)
  meta.writeBigUInt64LE(checksum(meta.subarray(0, META.checksum)), META.checksum)
  return bytes
}
