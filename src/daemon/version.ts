import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** What clients ask a daemon for; `git_commit` is compared by upstream's snapshotter to see whether a daemon is outdated. */
export interface VersionInfo {
  readonly package_ver: string
  readonly git_commit: string
  readonly build_time: string
  readonly profile: string
  readonly rustc: string
}

let known: VersionInfo | undefined

/** Version of this package. `rustc`, whose name is part of the API, tells the runtime. */
export function versionInfo(): VersionInfo {
  const version = packageVersion()
  known ??= {
    package_ver: `v${version}`,
    git_commit: `nydus-node-${version}`,
    build_time: 'unknown',
    profile: 'release',
    rustc: `node ${process.version}`,
  }
  return known
}

function packageVersion(): string {
  // The bundle lies one folder below the package, the source two.
  for (const up of ['../package.json', '../../package.json']) {
    try {
      const parsed: unknown = JSON.parse(readFileSync(fileURLToPath(new URL(up, import.meta.url)), 'utf8'))
      if (typeof parsed === 'object' && parsed !== null && 'version' in parsed && typeof parsed.version === 'string')
        return parsed.version
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error // ENOENT: it is the other one
    }
  }
  return '0.0.0'
}
