import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Version of this package; the original's programs want it to start with `v`. */
export function toolVersion(): string {
  return `v${packageVersion()}`
}

/** Programs look for `Version:` at the start of a line, and a word after it that starts with `v`. */
export function versionText(): string {
  return `Version: \t${toolVersion()}\nGit Commit: \tunknown\nBuild Time: \tunknown\nProfile: \trelease\nNode: \t\t${process.version}`
}

function packageVersion(): string {
  // The bundle lies one folder below the package, the source three.
  for (const up of ['../package.json', '../../../package.json']) {
    try {
      const parsed: unknown = JSON.parse(readFileSync(fileURLToPath(new URL(up, import.meta.url)), 'utf8'))
      if (typeof parsed === 'object' && parsed !== null && 'version' in parsed && typeof parsed.version === 'string')
        return parsed.version
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
  return '0.0.0'
}
