import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FileTree, newValues } from '../rafs/index.ts'
import { FILE_TYPES, LayerTree, PendingLinks } from './layer-tree.ts'

const COUNT = 100_000

/** Counts look-ups of names. */
class CountedTree extends FileTree {
  lookups = 0

  override find(parent: number, name: string): number {
    this.lookups += 1
    return super.find(parent, name)
  }
}

function layer(): { files: CountedTree; tree: LayerTree; links: PendingLinks } {
  const files = new CountedTree()
  const tree = new LayerTree(files)
  return { files, tree, links: new PendingLinks(tree) }
}

test('a chain of hard links, each before its target, takes a few look-ups a link', () => {
  const { files, tree, links } = layer()
  for (let at = 0; at < COUNT; at += 1) links.link(Buffer.from(`f${at}`), Buffer.from(`f${at + 1}`))
  const file = tree.put([`f${COUNT}`], newValues(FILE_TYPES.file | 0o640))
  links.finish()
  for (const at of [0, 1, COUNT - 1]) assert.equal(files.inode(tree.find([`f${at}`])), file)
  assert.ok(files.lookups < COUNT * 10, `${files.lookups} look-ups`)
})

test('hard links whose targets lie below links to symlinks that come later', () => {
  const { files, tree, links } = layer()
  const count = 2000
  for (let at = 0; at < count; at += 1) links.link(Buffer.from(`l${at}`), Buffer.from(`l${at + 1}/s`))
  tree.put(['d'], newValues(FILE_TYPES.directory | 0o755))
  const symlink = tree.put(['d', 's'], { ...newValues(FILE_TYPES.symlink | 0o777), target: Buffer.from('/d') })
  links.link(Buffer.from(`l${count}`), Buffer.from('d/s'))
  links.finish()
  for (const at of [0, 1, count]) assert.equal(files.inode(tree.find([`l${at}`])), symlink)
  assert.ok(files.lookups < count * 20, `${files.lookups} look-ups`)
})

test('hard links in a circle, to themselves and to nothing are named', () => {
  for (const pairs of [['a b', 'b c', 'c b'], ['a a'], ['a b/c', 'b d'], ['a nothing']]) {
    const { links } = layer()
    for (const pair of pairs) {
      const [path = '', target = ''] = pair.split(' ')
      links.link(Buffer.from(path), Buffer.from(target))
    }
    const [, target] = pairs[0]?.split(' ') ?? []
    assert.throws(
      () => links.finish(),
      { code: 'BAD_SOURCE', message: `the hard link "/a" points to "/${target}", which the archive does not have` },
      pairs.join(),
    )
  }
})

const directory = newValues(FILE_TYPES.directory | 0o755)
const file = newValues(FILE_TYPES.file | 0o644)

function symlink(target: string) {
  return { ...newValues(FILE_TYPES.symlink | 0o777), target: Buffer.from(target) }
}

test('siblings that an archive lists together are put without looking their directories up again', () => {
  const { files, tree } = layer()
  const names = ['a', 'b', 'c', 'd', 'e']
  for (let at = 0; at < 1000; at += 1) tree.put([...names, `f${at}`], file)
  assert.ok(files.lookups <= names.length, `${files.lookups} look-ups`)
  for (const at of [0, 999]) assert.notEqual(tree.find([...names, `f${at}`]), 0)
})

test('a directory that an archive replaces is not gone into any more by what comes next', () => {
  const { tree } = layer()
  const first = tree.put(['a', 'b', 'first'], file)
  tree.put(['c'], directory)
  tree.put(['a', 'b', 'second'], file)
  tree.put(['a', 'b'], symlink('/c'))
  const third = tree.put(['a', 'b', 'third'], file)
  assert.equal(tree.find(['c', 'third']), third)
  assert.equal(tree.find(['c', 'first']), 0)
  // Through a link it was not the directory of these names.
  tree.put(['a', 'b'], directory)
  const fourth = tree.put(['a', 'b', 'fourth'], file)
  assert.equal(tree.find(['a', 'b', 'fourth']), fourth)
  assert.equal(tree.find(['c', 'fourth']), 0)
  assert.notEqual(tree.find(['a', 'b', 'first']), first)
  tree.put(['a', 'b'], file)
  assert.throws(() => tree.put(['a', 'b', 'fifth'], file), { code: 'BAD_SOURCE' })
})

test('a directory that a hard link takes the place of is not gone into any more', () => {
  const { tree, links } = layer()
  tree.put(['d'], directory)
  const target = tree.put(['s'], symlink('/d'))
  tree.put(['a', 'b', 'x'], file)
  links.link(Buffer.from('a/b'), Buffer.from('s'))
  assert.equal(tree.files.inode(tree.find(['a', 'b'])), target)
  const inside = tree.put(['a', 'b', 'y'], file)
  assert.equal(tree.find(['d', 'y']), inside)
})
