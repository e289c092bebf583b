import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { CREATE_IN, ERRNO, FILE_OPCODE, FileReply, FileRequest, O } from '../../kernel/index.ts'
import { ROOT_NODE } from './file-server.ts'
import { HostTree } from './host-tree.ts'

/** CREATE in the root, by this process's user. Source: docs/formats/fuse-wire.md, "Headers" and "Writing". */
function create(name: string, flags: number): FileRequest {
  const bytes = Buffer.alloc(40 + CREATE_IN.size)
  bytes.writeUInt32LE(FILE_OPCODE.CREATE, 4)
  bytes.writeUInt32LE(ROOT_NODE, 16)
  bytes.writeUInt32LE(flags, 40 + CREATE_IN.flags)
  bytes.writeUInt32LE(0o644, 40 + CREATE_IN.mode)
  return new FileRequest(Buffer.concat([bytes, Buffer.from(`${name}\0`)]))
}

test('a file that the host made first is not handed out by CREATE: the kernel looks again', () => {
  const folder = mkdtempSync(join(tmpdir(), 'host-tree-'))
  const tree = new HostTree(1, folder, () => undefined)
  try {
    const reply = new FileReply()
    writeFileSync(join(folder, 'private'), 'secret', { mode: 0o600 })
    assert.equal(tree.answer(create('private', O.RDWR | O.CREAT | O.TRUNC), reply), -ERRNO.ESTALE)
    assert.equal(tree.answer(create('private', O.RDWR | O.CREAT | O.EXCL), reply), -ERRNO.EEXIST)
    assert.equal(readFileSync(join(folder, 'private'), 'utf8'), 'secret')
    assert.ok(tree.answer(create('new', O.RDWR | O.CREAT | O.TRUNC), reply) > 0)
    assert.equal(readFileSync(join(folder, 'new'), 'utf8'), '')
  } finally {
    tree.end()
    rmSync(folder, { recursive: true })
  }
})
