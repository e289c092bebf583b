import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PseudoTree } from './pseudo-tree.ts'

test('mounts make the directories above them, which stay', () => {
  const tree = new PseudoTree()
  const way = tree.mount('/a/b', 3)
  assert.deepEqual(
    way.map((node) => node.name),
    ['', 'a', 'b'],
  )
  tree.mount('/a/c', 4)
  assert.equal(tree.nodes.length, 4)
  assert.equal(tree.find('/a/b')?.slot, 3)
  tree.unmount(tree.find('/a/b') ?? assert.fail())
  assert.equal(tree.find('/a/b')?.slot, 0)
  tree.mount('/a/b', 5)
  assert.equal(tree.nodes.length, 4)
})

test('nothing is mounted inside of a mounted image', () => {
  const tree = new PseudoTree()
  tree.mount('/a', 1)
  assert.throws(() => tree.mount('/a/b', 2), { code: 'EXISTS' })
})

test('the root can be mounted beside others', () => {
  const tree = new PseudoTree()
  tree.mount('/a', 1)
  tree.mount('/', 2)
  assert.equal(tree.find('/')?.slot, 2)
  tree.mount('/b', 3)
})

test('paths that are none are refused', () => {
  const tree = new PseudoTree()
  for (const path of ['', 'a', 'a/b', '/a/../b', '/a\0', `/${'x'.repeat(256)}`, '/a'.repeat(65)])
    assert.throws(() => tree.mount(path, 1), { code: 'BAD_REQUEST' }, JSON.stringify(path))
  assert.equal(tree.nodes.length, 1)
})
