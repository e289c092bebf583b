import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { type LogOptions, SnapshotterLog } from './log.ts'
import { plainLine } from './plain-text.ts'

const OPTIONS: Omit<LogOptions, 'dir'> = {
  toStdout: false,
  level: 'info',
  maxSizeMib: 0,
  maxBackups: 5,
  maxAgeDays: 0,
  localTime: false,
  compress: true,
}

async function inFolder(run: (dir: string) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'snapshotter-log-'))
  try {
    await run(dir)
  } finally {
    rmSync(dir, { recursive: true })
  }
}

test('a line has its time, its level and its message; lower levels are left out', async () => {
  await inFolder(async (dir) => {
    const log = new SnapshotterLog({ ...OPTIONS, dir: join(dir, 'made/here') })
    log.debug('no')
    log.info('pulled app:1')
    log.error('two\nlines \u001b[31m')
    await log.close()
    log.info('late')
    const path = join(dir, 'made/here/nydus-snapshotter.log')
    const lines = readFileSync(path, 'utf8').split('\n')
    assert.match(lines[0] ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d INFO {2}pulled app:1$/)
    assert.match(lines[1] ?? '', / ERROR two\\nlines \\u001b\[31m$/)
    assert.equal(lines.length, 3)
    assert.equal(statSync(path).mode & 0o777, 0o600)
  })
})

test('a full file is put aside and compressed; number and age bound what is kept', async () => {
  await inFolder(async (dir) => {
    const message = 'x'.repeat(7 << 10)
    let minutes = 0
    const now = (): Date => new Date(Date.UTC(2026, 10, 27, 16, minutes))
    const log = new SnapshotterLog({ ...OPTIONS, maxSizeMib: 1, maxBackups: 2, dir }, now)
    for (; minutes < 5; minutes++) for (let line = 0; line < 100; line++) log.info(`${minutes} ${message}`)
    await log.close()
    assert.deepEqual(readdirSync(dir).sort(), [
      'nydus-snapshotter-2026-11-27T16-02-00.000.log.gz',
      'nydus-snapshotter-2026-11-27T16-04-00.000.log.gz',
      'nydus-snapshotter.log',
    ])
    const kept = gunzipSync(readFileSync(join(dir, 'nydus-snapshotter-2026-11-27T16-04-00.000.log.gz'))).toString()
    assert.match(kept, / INFO {2}2 x{100}/)
    assert.match(readFileSync(join(dir, 'nydus-snapshotter.log'), 'utf8'), / INFO {2}4 x{100}/)
    // what somebody else has there stays
    for (const other of ['nydus-snapshotter-mine.log', 'other.log']) writeFileSync(join(dir, other), '')
    await new SnapshotterLog(
      { ...OPTIONS, maxAgeDays: 1, dir },
      () => new Date(Date.UTC(2026, 10, 28, 16, 3, 30)),
    ).close()
    assert.deepEqual(readdirSync(dir).sort(), [
      'nydus-snapshotter-2026-11-27T16-04-00.000.log.gz',
      'nydus-snapshotter-mine.log',
      'nydus-snapshotter.log',
      'other.log',
    ])
  })
})

test('files put aside in one moment have different names, also uncompressed ones', async () => {
  await inFolder(async (dir) => {
    const options = { ...OPTIONS, maxSizeMib: 1, maxBackups: 0, compress: false, dir }
    const log = new SnapshotterLog(options, () => new Date(Date.UTC(2026, 0, 1)))
    for (let count = 0; count < 400; count++) log.info('x'.repeat(7 << 10))
    await log.close()
    assert.equal(readdirSync(dir).length, 3)
  })
})

test('a log that somebody removed is begun anew when it is full', async () => {
  await inFolder(async (dir) => {
    const log = new SnapshotterLog({ ...OPTIONS, maxSizeMib: 1, dir })
    const lines = (count: number): void => {
      for (let line = 0; line < count; line++) log.info('x'.repeat(7 << 10))
    }
    lines(100)
    rmSync(join(dir, 'nydus-snapshotter.log'))
    lines(100)
    log.info('goes on')
    await log.close()
    assert.deepEqual(readdirSync(dir), ['nydus-snapshotter.log'])
    assert.match(readFileSync(join(dir, 'nydus-snapshotter.log'), 'utf8'), /INFO {2}goes on$/m)
  })
})

test('secrets are hidden, whoever wrote them into a message', () => {
  const cases: ReadonlyArray<readonly [string, string]> = [
    ['{"auth":"dXNlcjpwYXNz","host":"h"}', '{"auth":[hidden],"host":"h"}'],
    [
      '"config":"{\\"registry_token\\":\\"abc.def\\",\\"repo\\":\\"r\\"}"',
      '"config":"{\\"registry_token\\":[hidden],\\"repo\\":\\"r\\"}"',
    ],
    ['https://user:pa@ss@host/v2/ failed', 'https://[hidden]@host/v2/ failed'],
    ['Authorization: Basic dXNlcjpwYXNz', 'Authorization: [hidden]'],
    ['sent Bearer abcdefghijk.l to x', 'sent Bearer [hidden] to x'],
    ['containerd.io/snapshot/pullsecret=hunter2, a=b', 'containerd.io/snapshot/pullsecret=[hidden], a=b'],
    ['password: hunter2', 'password: [hidden]'],
    ['access_key_secret = "s3"', 'access_key_secret = [hidden]'],
    ['pulled docker.io/library/app:1 in 3 s, author=me', 'pulled docker.io/library/app:1 in 3 s, author=me'],
  ]
  for (const [text, shown] of cases) assert.equal(plainLine(text), shown)
  for (const long of ['token=', 'x', '"', '\\"token\\":\\"'].map((part) => part.repeat(100_000)))
    assert.ok(plainLine(long).length < 20_000)
})

test('on stdout lines come at once, and a reader that goes away ends nothing', () => {
  const program = `import { SnapshotterLog } from ${JSON.stringify(join(import.meta.dirname, 'log.ts'))}
    const log = new SnapshotterLog({ ...${JSON.stringify(OPTIONS)}, toStdout: true, dir: '/nowhere' })
    for (let i = 0; i < 5; i++) log.warn('line ' + i)
    process.stderr.write('went on')`
  const run = (command: string): string =>
    spawnSync('sh', ['-c', command, 'sh', process.execPath, program], { encoding: 'utf8', timeout: 60_000 }).stderr
  const shown = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  assert.deepEqual(shown.stdout.match(/WARN {2}line \d/g)?.length, 5)
  assert.match(run('"$1" --input-type=module -e "$2" | true'), /went on/)
})
