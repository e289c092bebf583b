import manifest from '../../../package.json' with { type: 'json' }

/** Version of this package; the original's programs want it to start with `v`. */
export function toolVersion(): string {
  return `v${manifest.version}`
}

/** Programs look for `Version:` at the start of a line, and a word after it that starts with `v`. */
export function versionText(): string {
  return `Version: \t${toolVersion()}\nGit Commit: \tunknown\nBuild Time: \tunknown\nProfile: \trelease\nNode: \t\t${process.version}`
}
