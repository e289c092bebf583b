import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { FileTree, newValues, type NodeId, type NodeValues, RafsError } from './index.ts'

function values(mode: number, more: Partial<NodeValues> = {}): NodeValues {
  return { ...newValues(mode), ...more }
}
const DIRECTORY = values(0o040755)

/** Paths with what they are, in the order of the tree; names of one file share a number. */
function listed(files: FileTree, root: NodeId): string[] {
  const numbers = new Map<NodeId, number>()
  return Array.from(files.hybridOrder(root), (id) => {
    const inode = files.inode(id)
    if (!numbers.has(inode)) numbers.set(inode, numbers.size)
    return `${files.path(id)} ${files.mode(id).toString(8)} ${files.uid(id)} #${numbers.get(inode)}`
  })
}

test('a directory over a directory keeps its children, all else replaces', () => {
  const files = new FileTree()
  const root = files.addRoot(DIRECTORY)
  const d = files.put(root, 'd', DIRECTORY)
  files.put(d, 'x', values(0o100644))
  assert.equal(files.put(root, 'd', values(0o040700)), d)
  assert.deepEqual(listed(files, root), ['/ 40755 0 #0', '/d 40700 0 #1', '/d/x 100644 0 #2'])
  files.put(root, 'd', values(0o100600))
  assert.deepEqual(listed(files, root), ['/ 40755 0 #0', '/d 100600 0 #1'])
  // What was below does not come back.
  files.put(root, 'd', DIRECTORY)
  assert.deepEqual(listed(files, root), ['/ 40755 0 #0', '/d 40755 0 #1'])
})

test('a file with other names outlives its first one', () => {
  const files = new FileTree()
  const root = files.addRoot(DIRECTORY)
  const a = files.put(root, 'a', values(0o100644, { uid: 7 }))
  files.link(root, 'b', a)
  files.put(root, 'a', values(0o100600, { uid: 8 }))
  assert.deepEqual(listed(files, root), ['/ 40755 0 #0', '/a 100600 8 #1', '/b 100644 7 #2'])
  files.put(root, 'b', DIRECTORY)
  assert.equal(files.find(root, 'b'), files.children(root)[1])
  assert.equal(files.mode(files.find(root, 'b')), 0o040755)
})

test('a link over a directory, and a directory over that again, is empty', () => {
  const files = new FileTree()
  const root = files.addRoot(DIRECTORY)
  const target = files.put(root, 'target', values(0o100644))
  files.put(files.put(root, 'd', DIRECTORY), 'below', values(0o100644))
  files.link(root, 'd', target)
  files.put(root, 'd', DIRECTORY)
  assert.deepEqual(listed(files, root), ['/ 40755 0 #0', '/d 40755 0 #1', '/target 100644 0 #2'])
})

test('a link over a directory that was only implied is nothing that was implied', () => {
  const files = new FileTree()
  const root = files.addRoot(DIRECTORY)
  const target = files.put(root, 'target', values(0o100644))
  const implied = files.put(root, 'd', DIRECTORY)
  files.setImplied(implied)
  assert.equal(files.isImplied(files.link(root, 'd', target)), false)
})

test('a child of the same name is listed again, whatever stood between two directories of one name', () => {
  const between: ReadonlyArray<(files: FileTree, root: NodeId) => void> = [
    (files, root) => void files.put(root, 'd', values(0o100600)),
    (files, root) => void files.put(root, 'd', values(0o120777, { target: Buffer.from('x') })),
    (files, root) => void files.link(root, 'd', files.find(root, 'target')),
    (files, root) => void files.putDirectoryLike(root, files.find(root, 'd')),
  ]
  for (const [at, replace] of between.entries()) {
    const files = new FileTree()
    const root = files.addRoot(DIRECTORY)
    files.put(root, 'target', values(0o100644))
    const old = files.put(files.put(root, 'd', DIRECTORY), 'x', values(0o100644, { uid: 1 }))
    replace(files, root)
    assert.equal(files.find(files.find(root, 'd'), 'x'), 0, `${at}`)
    const again = files.put(files.put(root, 'd', DIRECTORY), 'x', values(0o100644, { uid: 2 }))
    assert.notEqual(again, old)
    const paths = listed(files, root).map((line) => line.split(' ')[0])
    assert.deepEqual(paths, ['/', '/d', '/target', '/d/x'], `${at}`)
    assert.equal(files.uid(again), 2)
  }
})

test('values of 64 bits, targets, xattrs and long names come back', () => {
  const files = new FileTree()
  const root = files.addRoot(DIRECTORY)
  const xattrs = [{ name: Buffer.from('user.large'), value: Buffer.alloc(65_535, 7) }]
  fc.assert(
    fc.property(
      fc.maxSafeInteger(),
      fc.maxSafeNat(),
      fc.uint8Array({ minLength: 1, maxLength: 4095 }),
      (mtime, size, target) => {
        const file = files.put(root, 'f'.repeat(255), values(0o100644, { mtime, size, xattrs }))
        const link = files.put(root, 'l', values(0o120777, { target }))
        assert.deepEqual([files.mtime(file), files.size(file)], [mtime, size])
        assert.deepEqual(files.target(link), target)
        assert.deepEqual(
          files.xattrs(file).map(({ value }) => Buffer.from(value)),
          [Buffer.alloc(65_535, 7)],
        )
      },
    ),
  )
})

for (const name of ['', '.', '..', 'a/b', 'a\0', 'x'.repeat(256)])
  test(`refuses the name ${JSON.stringify(name.slice(0, 8))} of ${name.length} bytes`, () => {
    const files = new FileTree()
    const root = files.addRoot(DIRECTORY)
    assert.throws(() => files.put(root, name, DIRECTORY), RafsError)
  })

test('entries of many trees, each moved over those of the one before, are there once', () => {
  const files = new FileTree()
  const root = files.addRoot(DIRECTORY)
  const names = Array.from({ length: 2_000 }, (_unused, at) => `file ${at}`)
  const rounds = 8
  for (let round = 1; round <= rounds; round++) {
    const upper = files.addRoot(DIRECTORY)
    for (const name of names) files.put(upper, name, values(0o100644, { uid: round }))
    for (const id of files.children(upper)) files.move(id, root)
  }
  assert.deepEqual(
    listed(files, root).map((line) => line.replace(/ #.*/, '')),
    ['/ 40755 0', ...names.toSorted().map((name) => `/${name} 100644 ${rounds}`)],
  )
})

test('a directory with a name twice is not written', () => {
  const tree = (...names: readonly string[]): FileTree => {
    const files = new FileTree()
    const root = files.addRoot(DIRECTORY)
    for (const name of names) files.put(root, name, values(0o100644))
    files.closeIndex() // now names that are there are not found
    files.put(root, 'm', values(0o100644))
    return files
  }
  assert.throws(() => tree('m'), { name: 'RafsError', code: 'BAD_DIRECTORY', message: /would hold "m" twice/ })
  const unsorted = tree('m', 'z')
  assert.throws(() => [...unsorted.hybridOrder(1)], { code: 'BAD_DIRECTORY' })
})

/** The same tree as objects, the plain way. */
class Model {
  readonly children = new Map<string, Model>()
  values: NodeValues = DIRECTORY

  get isDirectory(): boolean {
    return (this.values.mode & 0o170000) === 0o040000
  }
}

function modelListed(root: Model): string[] {
  const numbers = new Map<Model, number>()
  const line = (path: string, node: Model): string => {
    if (!numbers.has(node)) numbers.set(node, numbers.size)
    return `${path} ${node.values.mode.toString(8)} ${node.values.uid} #${numbers.get(node)}`
  }
  const lines = [line('/', root)]
  const open: Array<[string, Model]> = [['', root]]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [prefix, directory] = next
    const children = [...directory.children].sort(([a], [b]) => (a < b ? -1 : 1))
    for (const [name, child] of children) lines.push(line(`${prefix}/${name}`, child))
    for (const [name, child] of children.reverse()) if (child.isDirectory) open.push([`${prefix}/${name}`, child])
  }
  return lines
}

test('any run of puts, links, moves and removals gives the tree that objects give', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'é', '!', 'a!')
  const step = fc.record({
    what: fc.constantFrom('directory', 'file', 'link', 'move', 'remove', 'clear'),
    at: fc.array(name, { minLength: 1, maxLength: 3 }),
    to: fc.array(name, { minLength: 1, maxLength: 3 }),
    uid: fc.nat(99),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const files = new FileTree()
      const root = files.addRoot(DIRECTORY)
      const model = new Model()
      const find = (path: readonly string[]): [NodeId, Model | undefined] =>
        path.reduce<[NodeId, Model | undefined]>(
          ([id, node], part) => [
            id === 0 || !files.isDirectory(id) ? 0 : files.find(id, part),
            node?.children.get(part),
          ],
          [root, model],
        )
      for (const { what, at, to, uid } of steps) {
        const last = at.at(-1) ?? ''
        const [parent, above] = find(at.slice(0, -1))
        const [there, node] = find(at)
        assert.equal(there === 0, node === undefined)
        if (parent === 0 || above?.isDirectory !== true) continue
        if (what === 'remove') {
          files.remove(there)
          above.children.delete(last)
        } else if (what === 'clear') {
          files.removeChildren(there)
          node?.children.clear()
        } else if (what === 'move') {
          // From another tree, as layers are laid over each other.
          const put = values(0o100644, { uid })
          files.move(files.put(files.addRoot(DIRECTORY), last, put), parent)
          above.children.set(last, Object.assign(new Model(), { values: put }))
        } else if (what === 'link') {
          const [target, other] = find(to)
          if (other === undefined || other.isDirectory || other === node) continue
          files.link(parent, last, target)
          above.children.set(last, other)
        } else {
          const isDirectory = what === 'directory'
          const put = values(isDirectory ? 0o040700 : 0o100644, { uid })
          files.put(parent, last, put)
          if (isDirectory && node?.isDirectory === true) node.values = put
          else above.children.set(last, Object.assign(new Model(), { values: put }))
        }
      }
      assert.deepEqual(
        listed(files, root).map((line) => Buffer.from(line, 'latin1').toString('latin1')),
        modelListed(model),
      )
    }),
    { numRuns: 2000 },
  )
})
