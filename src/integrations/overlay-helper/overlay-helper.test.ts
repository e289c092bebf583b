/** bin/nydus-overlayfs, a shell program: real overlay mounts by it, by mount.fuse3, and what the original answers to the same command lines. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { knowsFileSystem, mountTmpfs, unmount } from '../../kernel/index.ts'

const HELPER = join(import.meta.dirname, '../../../bin/nydus-overlayfs')
const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../../package.json'), 'utf8')) as {
  version: string
}
const MiB = 1024 * 1024
const skip =
  process.getuid?.() !== 0
    ? 'needs root to mount overlayfs'
    : !knowsFileSystem('overlay') && 'this kernel has no overlayfs'

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Ended {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout: 60_000,
    cwd: '/',
    env: { PATH: process.env['PATH'], ...env },
  })
  if (error !== undefined) throw error
  return { code: status, stdout, stderr }
}

const withoutTime = (text: string): string => text.replaceAll(/^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d /gm, '')

/** Lies on a tmpfs, where overlayfs takes upper directories; `mnt` is to be mounted on. */
class Layers implements AsyncDisposable {
  readonly path = mkdtempSync(join(realpathSync(tmpdir()), 'nydus-overlayfs test '))
  readonly mnt = join(this.path, 'mnt')

  static async make(): Promise<Layers> {
    const layers = new Layers()
    await mountTmpfs(layers.path, 16 * MiB)
    for (const name of ['mnt', 'upper', 'work']) mkdirSync(join(layers.path, name))
    return layers
  }

  /** A layer with one file that has the layer's name in it. */
  layer(name: string, file = 'file'): string {
    const path = join(this.path, name)
    mkdirSync(path, { recursive: true })
    writeFileSync(join(path, file), name)
    return path
  }

  /** Options with this folder's upper and work directory. */
  options(lower: readonly string[], ...others: readonly string[]): string {
    const { path } = this
    return [`workdir=${path}/work`, `upperdir=${path}/upper`, `lowerdir=${lower.join(':')}`, ...others].join(',')
  }

  read(file = 'file'): string {
    return readFileSync(join(this.mnt, file), 'utf8')
  }

  /** Options of the mount itself, as the mount table has them. */
  flags(): string[] {
    const table = readFileSync('/proc/self/mountinfo', 'utf8')
    const line = table.split('\n').find((entry) => entry.includes(` ${this.mnt.replaceAll(' ', '\\040')} `))
    assert.ok(line, 'it is mounted')
    const [left = '', right = ''] = line.split(' - ')
    return [...(left.split(' ')[5] ?? '').split(','), `sb:${(right.split(' ')[2] ?? '').split(',')[0]}`]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await unmount(this.mnt, true)
    await unmount(this.path, true)
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** Environments in which the helper has to work: the shell it names, others that are there, and another mount(8). */
function surroundings(): Array<readonly [string, string, NodeJS.ProcessEnv]> {
  const found = (name: string): string | undefined =>
    ['/bin', '/usr/bin'].map((folder) => join(folder, name)).find(existsSync)
  const [bash, busybox] = [found('bash'), found('busybox')]
  const list: Array<readonly [string, string, NodeJS.ProcessEnv]> = [['/bin/sh', '/bin/sh', {}]]
  if (bash !== undefined) list.push(['bash', bash, { POSIXLY_CORRECT: '1' }])
  if (busybox !== undefined) {
    const folder = mkdtempSync(join(tmpdir(), 'nydus-overlayfs busybox '))
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
    for (const name of ['sh', 'mount', 'ln', 'mktemp', 'rm', 'date']) symlinkSync(busybox, join(folder, name))
    list.push(['busybox', join(folder, 'sh'), { PATH: folder }])
  }
  return list
}

test('says to wrong command lines what the original says, with its exit codes', () => {
  const recorded = JSON.parse(readFileSync(join(import.meta.dirname, 'testdata/original.json'), 'utf8')) as Array<
    Ended & { readonly args: readonly string[] }
  >
  assert.ok(recorded.length > 20)
  for (const { args, ...wanted } of recorded) {
    const ours = run(HELPER, args)
    const stdout = ours.stdout.replaceAll(`${version}.unknown`, 'development.unknown')
    assert.deepEqual({ ...ours, stdout, stderr: withoutTime(ours.stderr) }, wanted, JSON.stringify(args))
  }
})

test('its version is that of the package', () => {
  assert.equal(run(HELPER, ['--version']).stdout, `NydusOverlayfs version ${version}.unknown\n`)
})

for (const [name, shell, env] of surroundings()) {
  const mount = (target: string, options: string): Ended => run(shell, [HELPER, 'overlay', target, '-o', options], env)

  test(`${name}: mounts layers and leaves out what is meant for others`, { skip }, async () => {
    await using layers = await Layers.make()
    const options = layers.options(
      [layers.layer('top'), layers.layer('bottom', 'below')],
      `extraoption=${Buffer.from('{"source":"/x","config":"{}"}').toString('base64')}`,
      'io.katacontainers.volume=eyJ2b2x1bWVfdHlwZSI6ImltYWdlX2d1ZXN0X3B1bGwifQ==',
      'dev',
      'suid',
    )
    assert.deepEqual(mount(layers.mnt, options), { code: 0, stdout: '', stderr: '' })
    assert.deepEqual([layers.read(), layers.read('below')], ['top', 'bottom'])
    writeFileSync(join(layers.mnt, 'below'), 'changed')
    assert.equal(readFileSync(join(layers.path, 'upper/below'), 'utf8'), 'changed')
    assert.equal(readFileSync(join(layers.path, 'bottom/below'), 'utf8'), 'bottom')
  })

  test(`${name}: set-user-ID programs and devices work after dev,suid, and words clear what they are to clear`, {
    skip,
  }, async () => {
    // words, what the mount has, what it has not
    const table: Array<[string, string[], string[]]> = [
      ['dev,suid', ['rw', 'relatime', 'sb:rw'], ['nosuid', 'nodev', 'ro']],
      ['rw', ['rw', 'sb:rw'], ['ro']],
      ['ro', ['ro', 'sb:ro'], ['rw']],
      ['ro,rw,dev,suid', ['rw', 'sb:rw'], ['ro', 'nosuid', 'nodev']],
      ['nosuid,nodev,noexec,noatime', ['nosuid', 'nodev', 'noexec', 'noatime'], []],
      ['nosuid,nodev,noexec,noatime,suid,dev,exec,atime', ['relatime'], ['nosuid', 'nodev', 'noexec', 'noatime']],
      ['suid,nosuid', ['nosuid'], []],
      ['nodiratime,relatime', ['nodiratime', 'relatime'], []],
      ['nodiratime,diratime,async,nomand,norelatime,nostrictatime,defaults', ['relatime'], ['nodiratime']],
      ['strictatime', [], ['relatime', 'noatime']],
    ]
    for (const [words, has, hasNot] of table) {
      await using layers = await Layers.make()
      assert.deepEqual(mount(layers.mnt, layers.options([layers.layer('a')], words)), {
        code: 0,
        stdout: '',
        stderr: '',
      })
      const flags = layers.flags()
      assert.deepEqual(
        [has.filter((flag) => !flags.includes(flag)), hasNot.filter((flag) => flags.includes(flag))],
        [[], []],
        `${words}: ${flags.join()}`,
      )
    }
  })

  test(`${name}: values may have any characters that containerd can pass`, { skip }, async () => {
    const names = [
      'two  blanks',
      "'single'",
      '"double"',
      'one " alone',
      '$(touch hurt)`touch hurt`${HOME}',
      '*?[a]~',
      'new\nline',
      'back\\slash',
      '-dash',
      'ünïcode',
      'equals=ro',
      '\ttab;&|<>#!',
    ]
    for (const name of [...names, 'com,ma', 'co:lon']) {
      await using layers = await Layers.make()
      layers.layer(join('in', name))
      const escaped = join(layers.path, 'in', name).replaceAll(/[\\,:]/g, '\\$&')
      const upper = join(layers.path, 'upper', name)
      mkdirSync(upper)
      const options = `lowerdir=${escaped}:${layers.layer('b', 'below')},upperdir=${upper.replaceAll(/[\\,:]/g, '\\$&')},workdir=${layers.path}/work`
      assert.deepEqual(mount(layers.mnt, options), { code: 0, stdout: '', stderr: '' }, JSON.stringify(name))
      assert.deepEqual([layers.read(), layers.read('below')], [join('in', name), 'b'], JSON.stringify(name))
      writeFileSync(join(layers.mnt, 'new'), 'new')
      assert.equal(readFileSync(join(upper, 'new'), 'utf8'), 'new', JSON.stringify(name))
    }
    assert.equal(existsSync('/hurt'), false)
  })

  test(`${name}: 130 layers with long names, all in one folder`, { skip }, async () => {
    await using layers = await Layers.make()
    const folder = 'a folder whose name is so long that the list does not fit into a page of options'
    const lower = Array.from({ length: 130 }, (_, index) => layers.layer(join(folder, `${index}`, 'fs'), `of-${index}`))
    const options = layers.options(lower, 'dev', 'suid')
    assert.ok(options.length > 2 * 4096)
    assert.deepEqual(mount(layers.mnt, options), { code: 0, stdout: '', stderr: '' })
    for (const index of lower.keys()) assert.equal(layers.read(`of-${index}`), join(folder, `${index}`, 'fs'))
    writeFileSync(join(layers.mnt, 'new'), 'new')
    assert.equal(readFileSync(join(layers.path, 'upper/new'), 'utf8'), 'new')
  })

  test(`${name}: 200 layers that have no folder in common that would help`, { skip }, async () => {
    await using layers = await Layers.make()
    const temporary = join(layers.path, 'temporary')
    mkdirSync(temporary)
    const lower = Array.from({ length: 200 }, (_, index) =>
      layers.layer(`${index} of the many layers in folders of their own`, `of-${index}`),
    )
    const { code, stderr } = run(shell, [HELPER, 'overlay', layers.mnt, '-o', layers.options(lower)], {
      ...env,
      TMPDIR: temporary,
    })
    assert.deepEqual([code, stderr], [0, ''])
    for (const index of lower.keys()) assert.match(layers.read(`of-${index}`), new RegExp(`^${index} of the many`))
    assert.deepEqual(readdirSync(temporary), [], 'the links are gone')
  })

  test(`${name}: the folder for links goes away, wherever TMPDIR is, and is named when it cannot be made`, {
    skip,
  }, async () => {
    await using layers = await Layers.make()
    const temporary = join(layers.path, 'temporary')
    mkdirSync(temporary)
    const odd = [layers.layer('odd "a'), layers.layer('b', 'below')]
    // It runs in `/`, and TMPDIR may be relative to that.
    const link = (options: string, TMPDIR: string): Ended =>
      run(shell, [HELPER, 'overlay', layers.mnt, '-o', options], { ...env, TMPDIR, CDPATH: layers.path })
    const absent = link(layers.options(odd), '/no/such')
    assert.equal(absent.code, 1)
    assert.match(
      absent.stderr,
      /err: cannot make a folder in \/no\/such for links .*; let TMPDIR of containerd name one/,
    )
    assert.equal(link(layers.options([...odd, '/no/such/layer']), temporary).code, 1)
    assert.deepEqual(readdirSync(temporary), [], 'also when nothing could be mounted')
    assert.deepEqual(link(layers.options(odd), temporary.slice(1)), { code: 0, stdout: '', stderr: '' })
    assert.deepEqual([layers.read(), layers.read('below')], ['odd "a', 'b'])
    assert.deepEqual(readdirSync(temporary), [], 'also when its path is relative')
  })

  test(`${name}: errors name the directory that is missing, and the option that is unknown`, { skip }, async () => {
    await using layers = await Layers.make()
    const lower = layers.layer('a')
    const failing: Array<[string, string, RegExp]> = [
      [layers.mnt, layers.options([lower, '/no/such/layer']), /^doMount err: \/no\/such\/layer is no directory\n$/],
      [layers.mnt, `lowerdir=${lower},upperdir=/no/up,workdir=${layers.path}/work`, /err: \/no\/up is no directory/],
      [join(layers.path, 'nowhere'), layers.options([lower]), /err: .*\/nowhere is no directory/],
      [layers.mnt, layers.options([lower], 'x-containerd.what=1'), /overlayfs has no option x-containerd.what/],
      [layers.mnt, layers.options([lower], 'nosuchoption=1'), /^doMount err: ./],
      [layers.mnt, layers.options([lower], 'loop=/dev/loop0'), /overlayfs has no option loop/],
      [layers.mnt, layers.options([lower], 'index=off\\'), /in the middle of an escape/],
      [
        layers.mnt,
        layers.options(Array.from({ length: 3000 }, (_, index) => `/${index}`)),
        /3000 lower layers, and overlayfs takes 500/,
      ],
    ]
    for (const [target, options, told] of failing) {
      const { code, stdout, stderr } = mount(target, options)
      assert.deepEqual([code, stdout], [1, ''], options)
      assert.match(withoutTime(stderr), told)
    }
    assert.deepEqual(readdirSync(layers.mnt), [], 'nothing is mounted')
  })
}

const MOUNT_FUSE3 = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin']
  .map((folder) => join(folder, 'mount.fuse3'))
  .find(existsSync)

test('mount.fuse3 runs it as containerd has it run', {
  skip: skip || (MOUNT_FUSE3 === undefined && 'mount.fuse3 is not installed (package fuse3)'),
}, async () => {
  await using layers = await Layers.make()
  const program = join(layers.path, 'set-user-id')
  writeFileSync(join(layers.layer('a'), 'set-user-id'), '')
  chmodSync(join(layers.path, 'a/set-user-id'), 0o4755)
  const options = layers.options(
    [join(layers.path, 'a'), layers.layer('b\'$x "y"', 'below')],
    `extraoption=${'QUJD'.repeat(4000)}`,
  )
  const args = ['overlay', layers.mnt, ...options.split(',').flatMap((option) => ['-o', option])]
  const { code, stderr } = run(MOUNT_FUSE3 ?? '', [...args, '-t', 'nydus-overlayfs'], {
    PATH: `${dirname(HELPER)}:${process.env['PATH']}`,
  })
  assert.deepEqual([code, stderr], [0, ''])
  assert.equal(layers.read('below'), `b'$x "y"`)
  assert.deepEqual(
    layers.flags().filter((flag) => flag === 'nosuid' || flag === 'nodev'),
    [],
    program,
  )
  await unmount(layers.mnt)
  assert.equal(run(MOUNT_FUSE3 ?? '', [...args, '-t', HELPER]).code, 0, 'also by its path')
  assert.equal(layers.read('below'), `b'$x "y"`)
})
