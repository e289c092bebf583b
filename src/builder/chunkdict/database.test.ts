import assert from 'node:assert/strict'
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { type Bootstrap, openBootstrap } from '../../rafs/index.ts'
import { buildLayer } from '../index.ts'
import { DEFAULTS, inPieces, tarOf, temporary } from '../testing.ts'
import { ChunkDatabase } from './database.ts'
import { generateDictionary } from './generate.ts'

const signal = new AbortController().signal

async function image(...contents: readonly string[]): Promise<Bootstrap> {
  const tar = await tarOf(contents.map((content, i) => ({ path: `f${i}`, content: Buffer.from(content) })))
  const { bootstrap } = await buildLayer(inPieces(tar), { ...DEFAULTS, signal, sink: () => undefined })
  return openBootstrap(bootstrap)
}

const large = (letter: string): string => letter.repeat(9000)

/** A database with three versions of one image, closed; and the images. */
async function saved(path: string): Promise<Bootstrap[]> {
  const images = [
    await image(large('a'), large('b')),
    await image(large('a'), large('b'), 'c'),
    await image(large('d'), large('b')),
  ]
  const database = ChunkDatabase.open(path)
  await database.save(
    images.map((bootstrap, i) => ({ image: 'app', version: `${i + 1}`, bootstrap })),
    signal,
  )
  database.close()
  return images
}

test('what was saved comes back, and the same version saved again replaces it', async (t) => {
  const path = join(temporary(t), 'chunks.db')
  const images = await saved(path)
  await saved(path)
  const database = ChunkDatabase.open(path)
  t.after(() => database.close())
  const facts = database.load()
  assert.equal(facts.rows.length, 2 + 3 + 2)
  const [first] = images[0]?.blobs ?? []
  assert.equal(facts.chunk(facts.rows[0] ?? -1).blobId, first?.id)
  assert.deepEqual(database.blob(first?.id ?? ''), {
    compressedSize: first?.compressedSize,
    uncompressedSize: first?.uncompressedSize,
    compression: 'zstd',
    metaCompressedSize: first?.metaCompressedSize,
    metaUncompressedSize: first?.metaUncompressedSize,
    metaOffset: first?.metaOffset,
  })
  assert.equal(database.blob('nope'), undefined)
})

test('a save that is ended leaves what was there before, and no new file after it', async (t) => {
  const folder = temporary(t)
  const path = join(folder, 'chunks.db')
  await saved(path)
  const database = ChunkDatabase.open(path)
  const before = database.load().rows.length
  await assert.rejects(
    database.save(
      [{ image: 'app', version: '1', bootstrap: await image('x') }],
      AbortSignal.abort(new Error('enough')),
    ),
    /enough/,
  )
  assert.equal(database.load().rows.length, before)
  database.discard()
  assert.deepEqual(readdirSync(folder), ['chunks.db'])
  ChunkDatabase.open(join(folder, 'new.db')).discard()
  assert.deepEqual(readdirSync(folder), ['chunks.db'])
})

describe('databases that are none are refused, and stay as they are', () => {
  const refused = (path: string, pattern: RegExp): void =>
    assert.throws(
      () => ChunkDatabase.open(path),
      (error: Error & { code?: string }) => error.code === 'BAD_DATABASE' && pattern.test(error.message),
    )

  test('text', (t) => {
    const path = join(temporary(t), 'x.db')
    writeFileSync(path, 'no database at all, but long enough to look at its header'.repeat(20))
    refused(path, /not a database/)
    assert.equal(statSync(path).size, 57 * 20)
  })
  test('a folder', (t) => refused(temporary(t), /not a regular file/))
  test('a place that is not there', (t) => {
    const path = join(temporary(t), 'absent/x.db')
    refused(path, /unable to open database file/)
    assert.ok(!existsSync(path))
  })
  for (const [name, sql, pattern] of [
    [
      'an endless view',
      'CREATE VIEW chunk AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n',
      /"chunk"/,
    ],
    [
      'a trigger',
      'CREATE TABLE blob (id INTEGER PRIMARY KEY, blob_id TEXT); CREATE TRIGGER evil AFTER INSERT ON blob BEGIN DELETE FROM blob; END',
      /"evil"/,
    ],
    [
      'a generated column',
      'CREATE TABLE chunk (id INTEGER PRIMARY KEY, image_reference TEXT AS (hex(zeroblob(100000000))), version TEXT, chunk_blob_id TEXT, chunk_digest TEXT, chunk_crc32, chunk_compressed_size, chunk_uncompressed_size, chunk_compressed_offset, chunk_uncompressed_offset)',
      /generated/,
    ],
    ['other columns', 'CREATE TABLE chunk (id INTEGER PRIMARY KEY, name TEXT)', /no column "image_reference"/],
  ] as const) {
    test(name, (t) => {
      const path = join(temporary(t), 'x.db')
      const database = new DatabaseSync(path)
      database.exec(sql)
      database.close()
      refused(path, pattern)
    })
  }
})

describe('rows that cannot be are refused when they are read', () => {
  for (const [name, sql] of [
    ['a digest of other letters', "UPDATE chunk SET chunk_digest = 'Z' || substr(chunk_digest, 2)"],
    ['no digest', 'UPDATE chunk SET chunk_digest = NULL'],
    ['a negative size', 'UPDATE chunk SET chunk_compressed_size = -1'],
    ['a size of 64 bits', 'UPDATE chunk SET chunk_uncompressed_size = 1 << 40'],
    ['an offset beyond 2^53', 'UPDATE chunk SET chunk_compressed_offset = 9223372036854775807'],
    ['a fraction', 'UPDATE chunk SET chunk_uncompressed_offset = 0.5'],
    ['bytes for a name', "UPDATE chunk SET image_reference = x'00ff'"],
  ] as const) {
    test(name, async (t) => {
      const path = join(temporary(t), 'x.db')
      await saved(path)
      const damaged = new DatabaseSync(path)
      damaged.exec(sql)
      damaged.close()
      const database = ChunkDatabase.open(path)
      t.after(() => database.close())
      assert.throws(() => database.load(), { code: 'BAD_DATABASE' })
    })
  }

  test('an endless name, without reading it', async (t) => {
    const path = join(temporary(t), 'x.db')
    await saved(path)
    const damaged = new DatabaseSync(path)
    damaged.exec('UPDATE chunk SET version = hex(zeroblob(1000)) WHERE id = 1')
    damaged.close()
    assert.throws(() => ChunkDatabase.open(path), { code: 'BAD_DATABASE' })
  })
})

describe('a dictionary', () => {
  const generate = async (
    path: string,
    images: readonly Bootstrap[],
    sql = '',
  ): Promise<Awaited<ReturnType<typeof generateDictionary>>> => {
    const changed = new DatabaseSync(path)
    changed.exec(sql)
    changed.close()
    const database = ChunkDatabase.open(path)
    try {
      return await generateDictionary(database, images, { prefetchPaths: [], signal })
    } finally {
      database.close()
    }
  }

  test('of images at hand has their blobs and numbers of chunks; of others what the database proves', async (t) => {
    const path = join(temporary(t), 'x.db')
    const [, second, third] = await saved(path)
    assert.ok(second !== undefined && third !== undefined)
    const blob = second.blobs[0]
    for (const images of [[second], [third]]) {
      const made = await generate(path, images)
      const dictionary = openBootstrap(made.bootstrap)
      assert.deepEqual(
        made.blobs.map(({ id }) => id),
        [blob?.id],
      )
      assert.equal(made.chunkCount, 3)
      const { uncompressedSize, compressedSize, chunkCount, metaOffset, metaCompression } = dictionary.blobs[0] ?? {}
      assert.deepEqual(
        { uncompressedSize, compressedSize, chunkCount, metaOffset, metaCompression },
        {
          uncompressedSize: blob?.uncompressedSize,
          compressedSize: blob?.compressedSize,
          chunkCount: 3,
          metaOffset: blob?.metaOffset,
          metaCompression: blob?.metaCompression,
        },
      )
    }
  })

  test('leaves out a blob whose numbers of chunks nobody tells', async (t) => {
    const path = join(temporary(t), 'x.db')
    const [, , third] = await saved(path)
    const made = await generate(
      path,
      third === undefined ? [] : [third],
      'UPDATE chunk SET chunk_uncompressed_offset = chunk_uncompressed_offset + 4096 WHERE chunk_uncompressed_offset > 0',
    )
    assert.deepEqual([made.blobs.length, made.unknown.length], [0, 1])
  })

  for (const [name, sql] of [
    ['another digest', `UPDATE chunk SET chunk_digest = '${'0'.repeat(64)}' WHERE chunk_uncompressed_offset = 0`],
    ['another place', 'UPDATE chunk SET chunk_compressed_offset = chunk_compressed_offset + 1'],
  ] as const) {
    test(`is refused when the database says ${name} than the image`, async (t) => {
      const path = join(temporary(t), 'x.db')
      await assert.rejects(generate(path, await saved(path), sql), { code: 'BAD_DATABASE' })
    })
  }

  test('is refused when the database has the chunks of a blob, and not the blob', async (t) => {
    const path = join(temporary(t), 'x.db')
    const [, , third] = await saved(path)
    await assert.rejects(generate(path, third === undefined ? [] : [third], 'DELETE FROM blob'), {
      code: 'BAD_DATABASE',
    })
  })
})
