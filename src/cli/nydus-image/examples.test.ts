import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { TOOL } from './testing.ts'

test('the examples of docs/nydus-image.md run, one after the other', () => {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/nydus-image.md'), 'utf8')
  const examples = [...page.matchAll(/```sh\n([^]*?)```/g)].map((match) => match[1]).join('')
  assert.ok(examples.includes('nydus-image merge'))
  const folder = mkdtempSync(join(tmpdir(), 'examples-'))
  try {
    for (const path of ['bin', 'rootfs/bin', 'rootfs/etc']) mkdirSync(join(folder, path), { recursive: true })
    writeFileSync(join(folder, 'rootfs/bin/sh'), 'not really a shell\n')
    writeFileSync(join(folder, 'rootfs/etc/hostname'), 'example\n')
    for (const name of ['base.tar', 'app.tar'])
      execFileSync('tar', ['-cf', name, '-C', 'rootfs', name.startsWith('base') ? 'etc' : '.'], { cwd: folder })
    execFileSync('tar', ['-czf', 'layer.tar.gz', '-C', 'rootfs', '.'], { cwd: folder })
    const tool = join(folder, 'bin/nydus-image')
    writeFileSync(tool, `#!/bin/sh\nexec "${process.execPath}" --disable-warning=ExperimentalWarning "${TOOL}" "$@"\n`)
    chmodSync(tool, 0o755)
    const env = { ...process.env, PATH: `${join(folder, 'bin')}:${process.env['PATH']}` }
    const { status, stderr } = spawnSync('sh', ['-e', '-c', examples], { cwd: folder, env, encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
