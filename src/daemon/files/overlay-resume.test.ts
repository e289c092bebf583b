/** A daemon of an overlay dies before each call that changes something, and the next one is asked again: what comes of it is what comes of a change that nobody interrupts. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join, parse } from 'node:path'
import { test } from 'node:test'
import {
  FILE_OPCODE,
  MKNOD_IN,
  O,
  OPCODE,
  OPEN_IN,
  ownMemoryFolder,
  RENAME,
  SET,
  SETATTR_IN,
} from '../../kernel/index.ts'
import { Died, InterruptedCalls } from '../../kernel/testing/index.ts'
import { type Attributes, ESTALE, Layers } from './test-layers.ts'
import {
  after,
  attributes,
  type Change,
  linked,
  mkdir,
  named,
  noted,
  opened,
  removed,
  renamed,
  within,
  words,
  written,
} from './test-overlay-requests.ts'
import { create } from './test-requests.ts'

const skip =
  ownMemoryFolder('nydus') === undefined
    ? 'there is no memory file system at /dev/shm'
    : process.getuid?.() === 0
      ? false
      : 'needs root to find files by their handles'

const MOST_CALLS = 200
/** Numbers of files that the image has not. */
const OF_UPPER = 2 ** 48

const CHANGES: Readonly<Record<string, Change>> = {
  'a folder in a folder of the image': mkdir('emptydir', 'new'),
  'a folder in the place of a removed one': after(removed('', 'emptydir', FILE_OPCODE.RMDIR), mkdir('', 'emptydir')),
  'a FIFO': within('emptydir', {
    opcode: FILE_OPCODE.MKNOD,
    size: MKNOD_IN.size,
    head: { [MKNOD_IN.mode]: 0o010644 },
    rest: 'new\0',
  }),
  'a link': within('emptydir', named(FILE_OPCODE.SYMLINK, 'new\0target\0')),
  'a file': within('emptydir', create(0)),
  'a file in the place of a removed one': after(
    removed('sizes', '4096'),
    within('sizes', { ...create(O.EXCL), rest: '4096\0' }),
  ),
  'another name of a file of the image': linked('sizes/4096', 'emptydir', 'new'),
  'a fourth name of a file that has three': linked('hard/one', 'emptydir', 'new'),
  'a removed file of the image': removed('sizes', '4096'),
  'a removed name of a file that has three': removed('hard', 'one'),
  'a removed last name of a file that had three': after(
    removed('hard', 'one'),
    removed('hard', 'two'),
    removed('hard/sub', 'three'),
  ),
  'a removed copy': after(written('sizes/4096', 0, 0), removed('sizes', '4096')),
  'a removed folder of the image': removed('', 'emptydir', FILE_OPCODE.RMDIR),
  'a removed folder that was made, and emptied': after(
    mkdir('emptydir', 'new'),
    removed('emptydir', 'new', FILE_OPCODE.RMDIR),
  ),
  'a removed folder of both layers': after(
    mkdir('emptydir', 'new'),
    removed('emptydir', 'new', FILE_OPCODE.RMDIR),
    removed('', 'emptydir', FILE_OPCODE.RMDIR),
  ),
  'a renamed file of the image': renamed('sizes', '4096', 'emptydir', 'new'),
  'a file of the image that replaces another': renamed('sizes', '4096', 'sizes', '4097'),
  'a renamed name of three': renamed('hard', 'one', 'emptydir', 'new'),
  'a name of three that is replaced': renamed('sizes', '4096', 'hard', 'two'),
  'two files of the image exchanged': renamed('sizes', '4096', 'sizes', '4097', RENAME.EXCHANGE),
  'a file of the image renamed over a removed one': after(
    removed('sizes', '4097'),
    renamed('sizes', '4096', 'sizes', '4097'),
  ),
  'a folder renamed over a removed one': after(
    removed('', 'emptydir', FILE_OPCODE.RMDIR),
    mkdir('sizes', 'new'),
    renamed('sizes', 'new', '', 'emptydir'),
  ),
  'a folder that replaces one of the image': after(mkdir('sizes', 'new'), renamed('sizes', 'new', '', 'emptydir')),
  'a folder that replaces one of the image that was emptied': after(
    removed('hard/sub', 'three'),
    mkdir('sizes', 'new'),
    renamed('sizes', 'new', 'hard', 'sub'),
  ),
  'what is appended to a file of the image': written('sizes/4096', 4096, O.APPEND),
  'what is appended to a file that has three names': written('hard/one', 9000, O.APPEND),
  'what is appended to a file that had three names, and has its first': after(
    removed('hard', 'two'),
    removed('hard/sub', 'three'),
    written('hard/one', 9000, O.APPEND),
  ),
  'what is appended to a file that had three names, and has its last': after(
    removed('hard', 'one'),
    removed('hard', 'two'),
    written('hard/sub/three', 9000, O.APPEND),
  ),
  'what is written to a file of the image': written('sizes/4096', 100, 0),
  'a file cut short': attributes('sizes/4096', SET.SIZE, { [SETATTR_IN.length]: 1000 }),
  'another mode of a file that has three names': attributes('hard/sub/three', SET.MODE, { [SETATTR_IN.mode]: 0o600 }),
  'another mode of a folder': attributes('hard/sub', SET.MODE, { [SETATTR_IN.mode]: 0o700 }),
  'a new attribute': noted('sizes/4096'),
  'a removed attribute': async (layers) => ({
    ...named(FILE_OPCODE.REMOVEXATTR, 'user.foo\0'),
    node: await layers.node('xattr/user'),
  }),
}

interface Outcome {
  readonly content: readonly string[]
  readonly attributes: Attributes
  readonly before: Attributes
  readonly reached: ReadonlySet<string>
  readonly result: number
  readonly isOver: boolean
}

/** What comes of a change whose daemon dies before the `last`-th call, and which is asked for again; undefined: nobody dies. */
async function outcome(change: Change, last: number | undefined): Promise<Outcome> {
  using layers = new Layers()
  for (const path of ['hard/one', 'hard/two', 'hard/sub/three', 'sizes/4096', 'sizes/4097', 'emptydir', 'xattr/user'])
    await layers.node(path)
  const asked = { ...(await change(layers)), unique: 50 }
  const before = await layers.attributes()
  let result = 0
  let isOver = true
  if (last === undefined) result = await layers.ask(asked)
  else {
    using calls = new InterruptedCalls(last)
    try {
      await layers.ask(asked)
    } catch (error) {
      if (!(error instanceof Died)) throw error
    }
    isOver = calls.count < last
  }
  if (last !== undefined) {
    await layers.next()
    result = await layers.ask(asked, true)
    assert.deepEqual(layers.leftInWork, [], 'what is left in the work directory')
  }
  const [reached, attributes] = [await layers.reached(), await layers.attributes()]
  return { content: layers.content, before, attributes, reached, result, isOver }
}

for (const [name, change] of Object.entries(CHANGES))
  test(`${name}: whenever the daemon dies, it is made once`, { skip }, async () => {
    const wanted = await outcome(change, undefined)
    assert.ok(wanted.result >= 0, `${wanted.result}`)
    for (let last = 1; ; last++) {
      const found = await outcome(change, last)
      const where = `death before call ${last}`
      assert.deepEqual(found.content, wanted.content, where)
      assert.deepEqual([...found.reached], [...wanted.reached], where)
      assert.deepEqual(lasting(found, wanted), shown(wanted.attributes), where)
      for (const [path, told] of Object.entries(found.attributes))
        if (typeof told !== 'number') assert.equal(told[0], numberOf(found.before[path]), `${where}: number of ${path}`)
      assert.equal(found.result, wanted.result, where)
      if (found.isOver) break
      assert.ok(last < MOST_CALLS)
    }
  })

test('what is open goes on: before and after it is copied, also when it lost its last name and only the image has it', {
  skip,
}, async () => {
  using layers = new Layers()
  const file = await opened(layers, 'sizes/4096', O.RDWR)
  const asked = { opcode: OPCODE.OPEN, node: await layers.node('sizes/4097'), size: OPEN_IN.size, unique: 60 }
  assert.ok((await layers.ask(asked)) > 0)
  const gone = layers.answered(0)
  assert.ok((await layers.ask({ ...(await removed('sizes', '4097')(layers)), unique: 62 })) >= 0)
  await layers.next()
  assert.ok((await layers.ask(asked, true)) > 0)
  assert.equal(layers.answered(0), gone, 'an OPEN that is handed out again')
  const told = await layers.attributes()
  assert.deepEqual((told['sizes/4097'] as readonly number[])[3], 0)
  const write = { ...(await written('sizes/4096', 0, 0)(layers)), unique: 64 }
  assert.ok((await layers.ask({ ...write, head: { ...write.head, ...words({}, 0, file) } })) > 0)
  await layers.next()
  const before = layers.handles()
  for (const [at, handle] of [file, gone].entries())
    assert.equal(await layers.ask({ opcode: OPCODE.RELEASE, size: 24, head: words({}, 0, handle), unique: 70 + at }), 0)
  assert.ok(layers.handles() < before)
})

test('a file whose folder was removed, and which the image has elsewhere, is still there under its other names', {
  skip,
}, async () => {
  using layers = new Layers()
  const file = await layers.node('hard/sub/three')
  const removals = after(removed('hard/sub', 'three'), removed('hard', 'sub', FILE_OPCODE.RMDIR))
  assert.ok((await layers.ask({ ...(await removals(layers)), unique: 64 })) >= 0)
  await layers.next()
  const one = await layers.node('hard/one')
  assert.equal(one, file)
  assert.equal(((await layers.attributes())['hard/one'] as readonly number[])[3], 2)
  assert.ok((await layers.ask({ ...(await written('hard/one', 0, 0)(layers)), unique: 66 })) > 0)
  for (const name of ['one', 'two'])
    assert.equal(readFileSync(join(layers.upper, 'hard', name), 'latin1').slice(0, 12), 'twelve bytes')
})

test('a name that a file of the image has lost is not counted again when the kernel had forgotten the file', {
  skip,
}, async () => {
  using layers = new Layers()
  assert.ok((await layers.ask({ ...(await removed('hard', 'one')(layers)), unique: 64 })) >= 0)
  layers.forget('hard/one')
  const names = async (path: string): Promise<unknown> => {
    await layers.node(path)
    return ((await layers.attributes())[path] as readonly number[])[3]
  }
  for (let deaths = 0; deaths < 2; deaths++) {
    await layers.next()
    assert.equal(await names('hard/two'), 2)
    layers.forget('hard/two')
  }
  assert.equal(await names('hard/sub/three'), 2)
  for (const path of ['hard/two', 'hard/sub/three'])
    assert.ok((await layers.ask({ ...(await removed(...split(path))(layers)), unique: 66 + path.length * 2 })) >= 0)
  assert.deepEqual(layers.content.filter((line) => /^hard.(one|two|sub.three) /.test(line)).length, 3, 'all are hidden')
})

test('a listing goes on behind the name that was given last, whatever became of the names since', {
  skip,
}, async () => {
  using layers = new Layers()
  const node = await layers.node('sizes')
  assert.ok((await layers.ask({ opcode: OPCODE.OPENDIR, node, size: OPEN_IN.size, unique: 80 })) > 0)
  const handle = layers.answered(0)
  const names: string[] = []
  const readOn = async (after: bigint): Promise<bigint> => {
    const head = { ...words({}, 0, handle), 8: Number(after & 0xffff_ffffn), 12: Number(after >> 32n), 16: 200 }
    const got = await layers.ask({ opcode: OPCODE.READDIR, node, size: 40, head, unique: 82 })
    assert.ok(got >= 0, `${got}`)
    return layers.listed(got, names) ?? after
  }
  let at = await readOn(0n)
  for (const name of ['a', 'b', 'c']) await layers.ask({ ...(await mkdir('sizes', name)(layers)), unique: 90 })
  assert.ok((await layers.ask({ ...(await written('sizes/4096', 0, 0)(layers)), unique: 92 })) > 0)
  for (;;) {
    await layers.next()
    const next = await readOn(at)
    if (next === at) break
    at = next
  }
  assert.equal(new Set(names).size, names.length, 'each once')
  for (const name of ['.', '..', '1', '4095', '4096', '4097']) assert.ok(names.includes(name), name)
})

function split(path: string): [directory: string, name: string] {
  const { dir, base } = parse(path)
  return [dir, base]
}

function numberOf(told: number | readonly number[] | undefined): number | undefined {
  return typeof told === 'object' ? told[0] : told
}

/** The host gives the next file another number each time. */
function shown(attributes: Attributes): Attributes {
  const one = (told: number | readonly number[]): number | readonly number[] =>
    typeof told === 'number' ? told : [Math.min(told[0] ?? 0, OF_UPPER), ...told.slice(1)]
  return Object.fromEntries(Object.entries(attributes).map(([path, told]) => [path, one(told)]))
}

/** What cannot be reached by a name any more may be gone with the process. */
function lasting({ attributes: found }: Outcome, { attributes: wanted, reached }: Outcome): Attributes {
  const isGone = (path: string): boolean => found[path] === -ESTALE && !reached.has(path)
  return shown(
    Object.fromEntries(Object.entries(found).map(([path, told]) => [path, isGone(path) ? (wanted[path] ?? 0) : told])),
  )
}
