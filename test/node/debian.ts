/** Programs of newer Debian suites, unpacked in a folder: nothing of the machine is changed, and what was unpacked once is kept. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
const UPDATE_MS = 120_000
const DOWNLOAD_MS = 300_000

/** Why there are no packages, or false. Nothing is asked of the network for it. */
export function whyNoDebian(): string | false {
  if (!existsSync('/usr/bin/apt-get') || !existsSync('/usr/bin/dpkg')) return 'this machine has no apt'
  return existsSync(KEYRING) ? false : `no ${KEYRING}`
}

export class DebianPackages {
  readonly folder: string
  #ready: Promise<readonly string[]> | undefined

  /** `folder` is made if absent; another run may use it again. */
  constructor(folder: string) {
    this.folder = folder
  }

  /** The folder in which the packages' files are, as `usr/bin/containerd`. Throws when the suite cannot be reached or has no such package. */
  async unpacked(suite: string, packages: readonly string[]): Promise<string> {
    const at = join(this.folder, `${suite}-${packages.join('-')}`)
    if (existsSync(at)) return at
    mkdirSync(this.folder, { recursive: true })
    this.#ready ??= this.#update()
    const options = await this.#ready
    const work = mkdtempSync(join(this.folder, 'new-'))
    try {
      const names = packages.map((name) => `${name}/${suite}`)
      await run('apt-get', [...options, 'download', ...names], { cwd: work, timeout: DOWNLOAD_MS })
      const files = join(work, 'files')
      for (const name of readdirSync(work).filter((file) => file.endsWith('.deb')))
        await run('dpkg', ['-x', join(work, name), files])
      renameSync(files, at)
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
    return at
  }

  /** Options for apt-get with lists of its own, from the same mirror as the machine's. */
  async #update(): Promise<readonly string[]> {
    const apt = join(this.folder, 'apt')
    for (const name of ['lists/partial', 'archives/partial']) mkdirSync(join(apt, name), { recursive: true })
    const [own, mirror] = await this.machineSuite()
    const suites = [own, 'trixie', 'sid']
    const lines = suites.map((suite) => `deb [signed-by=${KEYRING}] ${mirror} ${suite} main\n`)
    writeFileSync(join(apt, 'sources.list'), lines.join(''))
    const options = [
      `Dir::Etc::sourcelist=${apt}/sources.list`,
      'Dir::Etc::sourceparts=-',
      `Dir::State::lists=${apt}/lists`,
      `Dir::Cache=${apt}`,
      `Dir::Cache::archives=${apt}/archives`,
      'Dir::State::status=/dev/null',
      'Acquire::Languages=none',
      'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false',
      'APT::Sandbox::User=root',
      'Acquire::Retries=1',
    ].flatMap((option) => ['-o', option])
    await run('apt-get', [...options, '-o', 'APT::Update::Error-Mode=any', 'update'], { timeout: UPDATE_MS })
    return options
  }

  /** Which Debian this is, and where it comes from. */
  async machineSuite(): Promise<readonly [suite: string, mirror: string]> {
    const format = '$(REPO_URI) $(RELEASE) $(COMPONENT)'
    const { stdout } = await run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'])
    const entries = stdout.split('\n').map((line) => line.split(' '))
    const [mirror, suite] =
      entries.find(
        ([at = '', release = '', part]) => /\/debian\/?$/.test(at) && !release.includes('-') && part === 'main',
      ) ?? []
    if (mirror === undefined || suite === undefined) throw new Error("apt's sources name no mirror of Debian")
    return [suite, mirror]
  }
}
