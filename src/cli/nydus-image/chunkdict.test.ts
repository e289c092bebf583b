import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, test } from 'node:test'
import { noShared, type Ran, sharedPath } from '../testing.ts'
import { runAll } from './testing.ts'

const peer = join(process.env['NYDUS_PEER_DIR'] ?? '', 'nydus-image')
const noPeer =
  process.env['NYDUS_PEER_DIR'] === undefined ? 'NYDUS_PEER_DIR is not set' : !existsSync(peer) && `there is no ${peer}`

/** Content that does not compress, the same in each run. */
function noise(seed: number, size: number): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed * 2_654_435_761 + 1
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[at] = state >>> 24
  }
  return bytes
}

let folder = ''
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'chunkdict-'))
  mkdirSync(join(folder, 'blobs'))
  const commands: string[][] = []
  for (let version = 1; version <= 5; version += 1) {
    const tree = join(folder, `tree-${version}`)
    mkdirSync(tree)
    for (let i = 0; i < 6; i += 1) writeFileSync(join(tree, `kept-${i}`), noise(i, 1000 + i * 9000))
    writeFileSync(join(tree, 'changed'), noise(100 + version, 30_000))
    for (const [prefix, ...args] of [['six'], ['five', '-v', '5'], ['toc', '--features', 'blob-toc']]) {
      mkdirSync(join(folder, `${prefix}/app:${version}`), { recursive: true })
      commands.push(['create', '-l', 'error', ...args, '-D', 'blobs', '-B', `${prefix}/app:${version}/bootstrap`, tree])
    }
  }
  for (const { exit, stderr } of await runAll(commands, folder)) assert.equal(exit, 0, stderr)
})
after(() => rmSync(folder, { recursive: true, force: true }))

const sources = (prefix: string): string[] => [1, 2, 3, 4, 5].map((version) => `${prefix}/app:${version}/bootstrap`)
const generate = (prefix: string, name: string, ...more: string[]): string[] => [
  'chunkdict',
  'generate',
  '--database',
  `sqlite://${folder}/${name}.db`,
  '-B',
  `${name}.boot`,
  '-J',
  `${name}.json`,
  ...more,
  ...sources(prefix),
]

async function ours(...commands: string[][]): Promise<Ran[]> {
  const all = await runAll(commands, folder)
  for (const [i, { exit, stderr }] of all.entries()) assert.equal(exit, 0, `${commands[i]?.join(' ')}\n${stderr}`)
  return all
}

function original(...args: string[]): void {
  const { status, stderr } = spawnSync(peer, [...args, '-l', 'error'], {
    cwd: folder,
    encoding: 'utf8',
    timeout: 60_000,
  })
  assert.equal(status, 0, `${args.join(' ')}\n${stderr}`)
}

const json = (name: string): { blobs: string[]; fs_version: string; compressor: string; bootstrap: string } =>
  JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8'))

for (const prefix of ['six', 'five', 'toc']) {
  const flags = prefix === 'five' ? ['-v', '5'] : []
  test(`a dictionary of five versions (${prefix}) serves the next build, and every byte is there`, async () => {
    const [made, checked] = await ours(
      generate(prefix, `ours-${prefix}`),
      ['check', `ours-${prefix}.boot`],
      ['stat', '-B', `ours-${prefix}.boot`, '-J', `stat-${prefix}.json`],
      [
        'create',
        ...flags,
        '--chunk-dict',
        `ours-${prefix}.boot`,
        '-D',
        'blobs',
        '-B',
        `next-${prefix}.boot`,
        '-J',
        `next-${prefix}.json`,
        'tree-5',
      ],
      ['check', '-D', 'blobs', `next-${prefix}.boot`],
    )
    assert.match(
      made?.stderr ?? '',
      /INFO After deduplicating test set size is .* and deduplicating rate is 0\.[0-9]+ \n/,
    )
    assert.match(made?.stderr ?? '', /INFO It is not recommended to use image deduplication\n.*INFO app\n/)
    assert.match(checked?.stdout ?? '', /is-chunkdict-generated/)
    const { blobs, fs_version: version, bootstrap } = json(`ours-${prefix}`)
    assert.ok(blobs.length > 0)
    assert.deepEqual([version, bootstrap], [prefix === 'five' ? '5' : '6', `ours-${prefix}.boot`])
    const { base_image: figures } = JSON.parse(readFileSync(join(folder, `stat-${prefix}.json`), 'utf8'))
    assert.ok(figures.chunks >= 7)
    // What the versions kept comes from the dictionary's blobs, all the rest from a blob of its own.
    const next = json(`next-${prefix}`).blobs
    assert.ok(next.some((id) => blobs.includes(id)))
    // Once more with the same database: what it had of the versions is replaced.
    const before = readFileSync(join(folder, `ours-${prefix}.boot`))
    await ours(generate(prefix, `ours-${prefix}`))
    assert.ok(readFileSync(join(folder, `ours-${prefix}.boot`)).equals(before))
  })

  test(`the original makes the same database and chooses the same blobs (${prefix}), and either uses the other's dictionary`, {
    skip: noPeer,
  }, async () => {
    original(...generate(prefix, `theirs-${prefix}`))
    await ours(generate(prefix, `mine-${prefix}`))
    assert.deepEqual(json(`mine-${prefix}`).blobs, json(`theirs-${prefix}`).blobs)
    for (const table of ['chunk', 'blob'])
      assert.deepEqual(rowsOf(`mine-${prefix}`, table), rowsOf(`theirs-${prefix}`, table))
    const create = (dictionary: string, name: string): string[] => [
      'create',
      ...flags,
      '--chunk-dict',
      `bootstrap=${dictionary}-${prefix}.boot`,
      '-D',
      'blobs',
      '-B',
      `${name}.boot`,
      '-J',
      `${name}.json`,
      'tree-5',
    ]
    original('check', '-B', `mine-${prefix}.boot`)
    original(...create('mine', 'a'), '-t', 'dir-rafs')
    const [theirs] = await ours(
      ['check', `theirs-${prefix}.boot`],
      create('mine', 'b'),
      create('theirs', 'c'),
      ['check', '-D', 'blobs', 'a.boot'],
      ['check', '-D', 'blobs', 'c.boot'],
    )
    assert.match(theirs?.stdout ?? '', /is-chunkdict-generated/)
    assert.ok(readFileSync(join(folder, 'b.boot')).equals(readFileSync(join(folder, 'a.boot'))))
    assert.deepEqual(json('c').blobs, json('a').blobs)
    // And either goes on with the other's database.
    original(...generate(prefix, `mine-${prefix}`))
    await ours(generate(prefix, `theirs-${prefix}`))
  })
}

function rowsOf(name: string, table: string): unknown[] {
  const database = new DatabaseSync(join(folder, `${name}.db`), { readOnly: true })
  try {
    return database.prepare(`SELECT * FROM ${table} ORDER BY id`).all()
  } finally {
    database.close()
  }
}

test('a database in memory leaves no file; a folder takes the dictionary under its digest', async () => {
  mkdirSync(join(folder, 'out'))
  const before = readdirSync(folder)
  const [made] = await ours([
    'chunkdict',
    'generate',
    '--database',
    'sqlite://:memory:',
    '-D',
    'out',
    ...sources('six'),
  ])
  assert.deepEqual(readdirSync(folder), before)
  const name = readdirSync(join(folder, 'out')).join()
  assert.match(name, /^[0-9a-f]{64}$/)
  assert.ok(made?.stderr.endsWith(`Chunkdict metadata is saved at: "out/${name}"\n`), made?.stderr)
})

test('the empty dictionary of the original is a valid image', { skip: noShared }, async () => {
  const [checked] = await ours(['check', sharedPath('images/chunkdict/bootstrap')])
  assert.equal(checked?.stdout, 'RAFS filesystem metadata is valid, referenced data blobs: \n')
})

test('what cannot be is told, and leaves nothing', async () => {
  const fresh = ['--database', `sqlite://${folder}/new.db`]
  const wrong: ReadonlyArray<readonly [readonly string[], RegExp]> = [
    [['-B', 'x', '--database', 'nope', 'six/app:1/bootstrap'], /^Error: Invalid database URL: nope\n$/],
    [['-B', 'x', '--database', 'sqlite://:x://y', 'six/app:1/bootstrap'], /Invalid database URL/],
    [
      ['-B', 'x', '--database', 'mysql:///x', 'six/app:1/bootstrap'],
      /^Error: Unsupported database type: mysql, please use a valid database URI, such as 'sqlite:\/\/\/path\/to\/chunkdict.db'\.\n$/,
    ],
    [['-B', 'x', '--database', `sqlite://${process.execPath}`, 'six/app:1/bootstrap'], /cannot use the database/],
    [['-B', 'x', '--database', 'sqlite:///dev/null/x.db', 'six/app:1/bootstrap'], /unable to open database file/],
    [['-B', 'x', ...fresh, 'blobs/x'], /^Error: cannot read the bootstrap blobs\/x/],
    [
      ['-B', 'x', ...fresh, 'six/app:1/bootstrap', 'five/app:1/bootstrap'],
      /^Error: Bootstrap versions are inconsistent, cannot use chunkdict\.\n$/,
    ],
    // The new database goes with the output that cannot be written.
    [['-B', 'absent/dict.boot', ...fresh, 'six/app:1/bootstrap'], /cannot write absent\/dict.boot/],
    [[...fresh, 'six/app:1/bootstrap'], /both --bootstrap and --blob-dir are missing/],
  ]
  const before = readdirSync(folder)
  const ran = await runAll(
    wrong.map(([args]) => ['chunkdict', 'generate', '-l', 'error', ...args]),
    folder,
  )
  for (const [i, { exit, stderr }] of ran.entries()) {
    assert.equal(exit, 1)
    assert.match(stderr, wrong[i]?.[1] ?? /never/)
  }
  assert.deepEqual(readdirSync(folder), before)
})
