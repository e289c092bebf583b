import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { sendDatagram } from './datagram.ts'

const RECEIVER = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('\\0' + sys.argv[1][1:] if sys.argv[1].startswith('@') else sys.argv[1])
print('bound', flush=True)
for _ in range(2): print(s.recv(4096).decode(), flush=True)`

test('datagrams arrive whole, at names in the file system and abstract ones', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'datagram-'))
  try {
    for (const path of [join(folder, 'notify'), `@nydus-test-${process.pid}`]) {
      const receiver = spawn('python3', ['-c', RECEIVER, path], { stdio: ['ignore', 'pipe', 'inherit'] })
      const failed = once(receiver, 'error').then(() => 'no python3')
      const lines: string[] = []
      const over = new Promise<void>((resolve) => receiver.stdout.on('end', resolve))
      const bound = new Promise<void>((resolve) =>
        receiver.stdout.on('data', (part: Buffer) => {
          lines.push(...part.toString().split('\n').filter(Boolean))
          resolve()
        }),
      )
      if ((await Promise.race([bound, failed])) === 'no python3') return context.skip('python3 is not here')
      sendDatagram(path, Buffer.from('READY=1'))
      sendDatagram(path, Buffer.from('STATUS=ä b'))
      await over
      assert.deepEqual(lines, ['bound', 'READY=1', 'STATUS=ä b'])
    }
    assert.throws(() => sendDatagram(join(folder, 'nobody'), Buffer.from('x')), { code: 'ENOENT' })
    assert.throws(() => sendDatagram('/'.repeat(200), Buffer.from('x')), { code: 'ENAMETOOLONG' })
  } finally {
    rmSync(folder, { recursive: true })
  }
})
