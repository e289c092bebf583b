import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { sendDatagram } from './datagram.ts'
import { DatagramReceiver } from './testing/index.ts'

test('datagrams arrive whole, at names in the file system and abstract ones', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'datagram-'))
  try {
    for (const path of [join(folder, 'notify'), `@nydus-test-${process.pid}`]) {
      using receiver = new DatagramReceiver(path)
      sendDatagram(path, Buffer.from('READY=1'))
      sendDatagram(path, Buffer.from('STATUS=ä b'))
      assert.deepEqual([await receiver.next(), await receiver.next()], ['READY=1', 'STATUS=ä b'])
      await assert.rejects(receiver.next(1), /no datagram came within 1 ms/)
      assert.throws(() => new DatagramReceiver(path), { code: 'EADDRINUSE' })
    }
    assert.throws(() => sendDatagram(join(folder, 'nobody'), Buffer.from('x')), { code: 'ENOENT' })
    assert.throws(() => sendDatagram('/'.repeat(200), Buffer.from('x')), { code: 'ENAMETOOLONG' })
  } finally {
    rmSync(folder, { recursive: true })
  }
})
