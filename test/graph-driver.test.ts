/** The graph driver by its protocol: layers as Docker writes and reads them, with real mounts. */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, linkSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sampleLayers, tarOf, testWorld } from '../src/convert/testing.ts'
import { knowsFileSystem, whyNoFuse } from '../src/kernel/index.ts'
import { DriverUnderTest, PluginError } from './beside/graph-driver.ts'
import { dockerImage, noteSource } from './beside/docker-image.ts'
import { assertSamePaths, linesOf, shownFolder } from './shown-paths.ts'

const skip = process.getuid?.() !== 0 ? 'needs root' : !knowsFileSystem('overlay') && 'this kernel has no overlayfs'
const shown = (folder: string): string[] => linesOf(shownFolder(folder))
/** No layer says the time of the root. */
const withoutRoot = (lines: string[]): string[] => lines.filter((line) => !line.includes('"path":"/",'))

/** What a process calls itself. */
const commandOf = (pid: number): string => readFileSync(`/proc/${pid}/comm`, 'utf8').trim()

function refused(told: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof PluginError)
    assert.match(error.message, told)
    return true
  }
}

test('answers what the protocol wants, and refuses what it does not know', { skip }, async () => {
  await using driver = await DriverUnderTest.start()
  assert.deepEqual((await driver.call('Plugin.Activate'))['Implements'], ['GraphDriver'])
  await assert.rejects(driver.call('GraphDriver.Exists', { ID: 'a' }), refused(/not initialised/))
  await assert.rejects(driver.init(['size=1G']), refused(/storage option size=1G is unknown/))
  await driver.init()
  const capabilities = await driver.call('GraphDriver.Capabilities')
  assert.deepEqual(capabilities['Capabilities'], { ReproducesExactDiffs: false })
  await driver.writable('a', '')
  assert.equal((await driver.call('GraphDriver.Exists', { ID: 'a' }))['Exists'], true)
  assert.equal((await driver.call('GraphDriver.Exists', { ID: 'b' }))['Exists'], false)
  const wrong: Array<[string, object | Buffer, RegExp]> = [
    ['GraphDriver.Nope', {}, /there is no call GraphDriver.Nope/],
    ['/[', {}, /there is no call \/\[/],
    ['GraphDriver.Get', { ID: 'b', MountLabel: '' }, /layer b does not exist/],
    ['GraphDriver.Get', { ID: 'a', MountLabel: 'system_u:x' }, /SELinux/],
    ['GraphDriver.Get', {}, /lacks ID/],
    ['GraphDriver.Get', Buffer.from('{"ID":'), /not JSON/],
    ['GraphDriver.Get', Buffer.from('[]'), /JSON object/],
    ['GraphDriver.Create', { ID: 'a', Parent: '' }, /layer a exists already/],
    ['GraphDriver.Create', { ID: 'c', Parent: 'nope' }, /layer nope does not exist/],
    ['GraphDriver.Create', { ID: 'c', Parent: '', StorageOpt: { size: '1G' } }, /--storage-opt size/],
    ['GraphDriver.Init', { Home: 'relative' }, /absolute path/],
    ...['', '.', '..', '../a', 'a/b', '/etc', '.nydus', '-a', 'a\n', 'x'.repeat(300), 'a\0b'].flatMap(
      (ID): Array<[string, object, RegExp]> =>
        ['Create', 'Get', 'Put', 'Remove', 'GetMetadata', 'Exists'].map((name) => [
          `GraphDriver.${name}`,
          { ID, Parent: '', MountLabel: '' },
          /cannot use the layer id/,
        ]),
    ),
  ]
  for (const [name, request, told] of wrong) await assert.rejects(driver.call(name, request), refused(told))
  await assert.rejects(driver.apply('../x', '', Buffer.alloc(0)), refused(/cannot use the layer id/))
  await assert.rejects(driver.diff('nope', ''), refused(/does not exist/))
  assert.deepEqual(
    ((await driver.call('GraphDriver.Status'))['Status'] as string[][]).map(([key]) => key),
    ['Backing Filesystem', 'Layers', 'Nydusd', 'Nydus images mounted'],
  )
  await driver.call('GraphDriver.Remove', { ID: 'a' })
  await driver.call('GraphDriver.Remove', { ID: 'a' })
  assert.equal((await driver.call('GraphDriver.Exists', { ID: 'a' }))['Exists'], false)
})

test('layers go in and come out as they were: whiteouts, opaque directories, links, attributes, devices', {
  skip,
}, async () => {
  await using driver = await DriverUnderTest.start()
  await driver.init()
  const layers = await sampleLayers()
  let parent = ''
  for (const [index, tar] of layers.entries()) {
    await driver.layer(`in${index}`, parent, tar)
    parent = `in${index}`
  }
  await driver.writable('top', parent)
  const whole = shown(await driver.get('top'))
  assert.ok(whole.some((line) => line.includes('"/opaque/above"')))
  assert.ok(!whole.some((line) => /"\/(?:etc\/gone|opaque\/below|again\/below)"/.test(line)))

  // The same layers again, of what came out.
  parent = ''
  for (const index of layers.keys()) {
    const tar = await driver.diff(`in${index}`, index === 0 ? '' : `in${index - 1}`)
    await driver.layer(`out${index}`, parent, tar)
    parent = `out${index}`
    const again = await driver.diff(parent, index === 0 ? '' : `out${index - 1}`)
    assert.ok(again.equals(tar), 'the same bytes each time')
  }
  await driver.writable('top2', parent)
  assertSamePaths(withoutRoot(shown(await driver.get('top2'))), withoutRoot(whole), 'what came out')
  await driver.put('top')
  await driver.put('top2')
  assert.deepEqual(await driver.mounts(), [])
})

test('what a container changes: list, size, and layers for other parents', { skip }, async () => {
  await using driver = await DriverUnderTest.start()
  await driver.init()
  const base = await tarOf([
    { path: './', type: 'directory', mode: 0o555 },
    { path: 'dir/', type: 'directory' },
    { path: 'dir/kept', type: 'file', content: 'kept' },
    { path: 'dir/gone', type: 'file', content: 'gone' },
    { path: 'dir/changed', type: 'file', content: 'old' },
    { path: 'whole/', type: 'directory' },
    { path: 'whole/a', type: 'file', content: 'a' },
  ])
  await driver.layer('base', '', base)
  await driver.writable('c', 'base')
  const root = await driver.get('c')
  assert.equal(statSync(root).mode & 0o7777, 0o555, 'the root is as the image has it')
  rmSync(join(root, 'dir/gone'))
  writeFileSync(join(root, 'dir/changed'), 'newer')
  chmodSync(join(root, 'dir'), 0o700)
  mkdirSync(join(root, 'made'))
  writeFileSync(join(root, 'made/one'), '12345')
  linkSync(join(root, 'made/one'), join(root, 'made/two'))
  rmSync(join(root, 'whole'), { recursive: true })
  mkdirSync(join(root, 'whole'))
  writeFileSync(join(root, 'whole/b'), 'b')
  const changes = (await driver.call('GraphDriver.Changes', { ID: 'c', Parent: 'base' }))['Changes'] as Array<{
    Path: string
    Kind: number
  }>
  const listed = changes.map(({ Path, Kind }) => `${'CAD'[Kind]} ${Path}`).sort()
  const wanted = ['A /made', 'A /made/one', 'A /made/two', 'A /whole/b', 'C /dir', 'C /dir/changed', 'C /whole']
  assert.deepEqual(listed, [...wanted, 'D /dir/gone', 'D /whole/a'])
  const size = async (parent: string): Promise<unknown> =>
    (await driver.call('GraphDriver.DiffSize', { ID: 'c', Parent: parent }))['Size']
  assert.equal(await size('base'), 'newer'.length + '12345'.length + 'b'.length, 'a file with two names counts once')

  const seen = shown(root)
  // The container's layer on another parent, and the whole of it on none.
  await driver.layer('other', '', base)
  await driver.layer('moved', 'other', await driver.diff('c', 'base'))
  await driver.layer('flat', '', await driver.diff('c', ''))
  await driver.layer('naive', 'other', await driver.diff('c', 'other'))
  for (const id of ['moved', 'flat', 'naive']) {
    await driver.writable(`${id}-top`, id)
    assertSamePaths(withoutRoot(shown(await driver.get(`${id}-top`))), withoutRoot(seen), id)
  }
  await driver.put('c')
  const { Metadata } = (await driver.call('GraphDriver.GetMetadata', { ID: 'c' })) as {
    Metadata: Record<string, string>
  }
  assert.deepEqual(Object.keys(Metadata).sort(), ['LowerDir', 'MergedDir', 'UpperDir', 'WorkDir'])
  await assert.rejects(driver.apply('c', 'base', base), refused(/has content already/))
})

test('a layer that wants out of its directory does not get there', { skip }, async () => {
  await using driver = await DriverUnderTest.start()
  await driver.init()
  const outside = join(driver.path, 'outside')
  const hostile: Array<Parameters<typeof tarOf>[0]> = [
    [{ path: '../outside', type: 'file', content: 'x' }],
    [
      { path: 'link', type: 'symlink', link: driver.path },
      { path: 'link/outside', type: 'file', content: 'x' },
    ],
    [{ path: 'hard', type: 'hardlink', link: '../state/init.json' }],
    [{ path: '.wh...', type: 'file' }],
  ]
  for (const [index, entries] of hostile.entries()) {
    await driver.writable(`h${index}`, '')
    await driver.apply(`h${index}`, '', await tarOf(entries)).catch((error: unknown) => {
      assert.ok(error instanceof PluginError)
    })
    assert.equal(existsSync(outside), false)
  }
  await driver.writable('cut', '')
  await assert.rejects(driver.apply('cut', '', Buffer.alloc(700, 'not a tar')), refused(/./))
  assert.deepEqual(shown(join(driver.home, 'cut/diff')).length, 1, 'a layer that failed is empty')
  const steering = await tarOf([
    { path: 'd/', type: 'directory', xattrs: { 'trusted.overlay.redirect': '/', 'user.kept': 'yes' } },
  ])
  await driver.layer('steering', '', steering)
  assert.doesNotMatch(shown(join(driver.home, 'steering/diff')).join(), /trusted.overlay/)
})

test('mounts are counted, and found again by a driver that was killed', { skip }, async () => {
  await using driver = await DriverUnderTest.start()
  await driver.init()
  await driver.layer('base', '', await tarOf([{ path: 'file', type: 'file', content: 'text' }]))
  assert.equal(await driver.get('base'), join(driver.home, 'base/diff'), 'what has nothing below needs no mount')
  await driver.writable('c', 'base')
  const root = await driver.get('c')
  assert.equal(await driver.get('c'), root)
  assert.deepEqual(await driver.mounts(), [root])
  await driver.put('c')
  assert.deepEqual(await driver.mounts(), [root], 'one user is left')
  mkdirSync(join(driver.home, '.new-half'))
  await driver.end('SIGKILL')
  await driver.run()
  assert.equal(readFileSync(join(root, 'file'), 'utf8'), 'text', 'it is mounted still')
  assert.equal(existsSync(join(driver.home, '.new-half')), false, 'what was half-made is gone')
  assert.equal((await driver.call('GraphDriver.Exists', { ID: 'c' }))['Exists'], true, 'without another Init')
  assert.equal(await driver.get('c'), root)
  await driver.put('c')
  assert.deepEqual(await driver.mounts(), [root], 'the user from before counts')
  await driver.put('c')
  assert.deepEqual(await driver.mounts(), [])
  await driver.put('c')
  await Promise.all(Array.from({ length: 20 }, () => driver.get('c')))
  assert.deepEqual(await driver.mounts(), [root], 'twenty at once make one mount')
  await driver.call('GraphDriver.Remove', { ID: 'c' })
  assert.deepEqual(await driver.mounts(), [])
})

test('a Nydus image of any registry is mounted lazily, outlives the driver, and goes at the end', {
  skip: skip || whyNoFuse(),
}, async () => {
  await using world = await testWorld()
  const image = await dockerImage(world)
  await using driver = await DriverUnderTest.start()
  await driver.init()
  const before = world.server.counters().blob.bytesOut
  const fetched = (): number => world.server.counters().blob.bytesOut - before
  await driver.layer('boot', '', image.bootstrapLayer)
  await assert.rejects(
    driver.writable('c', 'boot'),
    refused(/cannot tell which registry the image of layer boot is from/),
  )
  assert.equal(fetched(), 0, 'nothing is fetched before the image is mounted')
  noteSource(driver.home, { layer: 'boot', diffId: image.diffId, repository: `${world.server.host}/app` })
  await driver.writable('c-init', 'boot')
  await driver.writable('c', 'c-init')
  const root = await driver.get('c')
  // Not synchronous: the registry is in this process.
  for (const [path, content] of image.files.slice(0, 3))
    assert.ok((await readFile(join(root, path))).equals(content), path)
  assert.ok(fetched() > 0, 'data comes from the registry')
  writeFileSync(join(root, 'data/00'), 'changed')
  await driver.end('SIGKILL')
  await driver.run()
  for (const [path, content] of image.files.slice(1))
    assert.ok((await readFile(join(root, path))).equals(content), path)
  await driver.writable('d', 'boot')
  assert.ok((await readFile(join(await driver.get('d'), 'data/00'))).equals(Buffer.from(image.files[0]?.[1] ?? [])))
  const listed = (await driver.call('GraphDriver.Changes', { ID: 'c', Parent: 'c-init' }))['Changes'] as object[]
  assert.deepEqual(listed, [{ Path: '/data/00', Kind: 0 }])
  assert.equal(await driver.get('boot'), join(driver.home, 'boot/diff'), 'the layer itself is what was pulled')
  await driver.put('d')
  await driver.call('GraphDriver.Cleanup')
  assert.deepEqual(await driver.mounts(), [])
  for (let tries = 0; tries < 600 && driver.processes().length > 0; tries += 1) await sleep(100)
  assert.deepEqual(driver.processes(), [], 'its keeper ends with nydusd')
})

test('an image that is asked for right after nydusd died waits for its keeper, and no container loses its files', {
  skip: skip || whyNoFuse(),
}, async () => {
  await using world = await testWorld()
  const image = await dockerImage(world)
  await using driver = await DriverUnderTest.start()
  await driver.init()
  for (const [layer, container] of [
    ['one', 'c1'],
    ['two', 'c2'],
  ] as const) {
    await driver.layer(layer, '', image.bootstrapLayer)
    noteSource(driver.home, { layer, diffId: image.diffId, repository: `${world.server.host}/app` })
    // Not the keeper, a shell.
    for (const pid of driver.processes().filter((one) => commandOf(one) !== 'sh')) process.kill(pid, 'SIGKILL')
    await driver.writable(container, layer)
    await driver.get(container)
  }
  const [path, content] = image.files[5] ?? []
  for (const container of ['c1', 'c2'])
    assert.ok((await readFile(join(driver.home, container, 'merged', path ?? ''))).equals(content ?? Buffer.of()))
  assert.equal(driver.log.includes('does not run'), false, driver.log)
  await driver.call('GraphDriver.Cleanup')
  assert.deepEqual(await driver.mounts(), [])
})
