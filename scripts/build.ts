/** Bundles every tool and every worker into dist/*.cjs (CommonJS starts about 50 ms sooner than an ES module bundle). */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { build } from 'esbuild'

const root = join(import.meta.dirname, '..')
const tools = readdirSync(join(root, 'src/cli'), { withFileTypes: true }).flatMap((entry) =>
  entry.isDirectory()
    ? [{ out: entry.name, in: join(root, 'src/cli', entry.name, 'index.ts') }]
    : entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts') && entry.name.startsWith('nydus')
      ? [{ out: basename(entry.name, '.ts'), in: join(root, 'src/cli', entry.name) }]
      : [],
)
const workers = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('-worker.ts'))
  .map((path) => ({ out: basename(path, '.ts'), in: join(root, 'src', path) }))
/** What a FUSE mount never loads. */
const services = { out: 'nydusd-services', in: join(root, 'src/daemon/services/index.ts') }

/** Stands for the build's name until all files of it are known. */
const UNNAMED_BUILD = '@nydus-build@'

rmSync(join(root, 'dist'), { recursive: true, force: true })
const { outputFiles } = await build({
  write: false,
  entryPoints: [...tools, ...workers, services],
  outdir: join(root, 'dist'),
  outExtension: { '.js': '.cjs' },
  bundle: true,
  // A third less to read at every start; names stay, for stack traces.
  minifyWhitespace: true,
  platform: 'node',
  target: 'node24',
  format: 'cjs',
  external: ['koffi', '@napi-rs/blake-hash', '@node-rs/crc32', 'undici'],
  define: {
    'import.meta.url': 'bundleUrl',
    'import.meta.dirname': '__dirname',
    BUILD_ID: JSON.stringify(UNNAMED_BUILD),
  },
  banner: {
    // The cache lies beside the bundle, never in a folder that others may write; the launcher names it for the bundle itself.
    js: "delete process.env.NODE_COMPILE_CACHE;const lazyBuiltin=(name)=>{let it;return new Proxy({},{get:(_target,key)=>(it??=process.getBuiltinModule(name))[key]})};const bundleUrl=require('node:url').pathToFileURL(__filename).href;require('node:module').enableCompileCache?.(require('node:path').join(__dirname,'.cache'));",
  },
  logLevel: 'warning',
})

/** Parts of Node that take milliseconds to load and that many starts never use: loaded with the first use of one of their names. */
const LAZY = /(?<==(?:__toESM\()?)require\("(node:(?:crypto|zlib|child_process|sqlite))"\)/g
const name = createHash('sha256')
for (const { contents } of outputFiles) name.update(contents)
const buildId = name.digest('hex').slice(0, 16)
mkdirSync(join(root, 'dist'))
for (const { path, text } of outputFiles) {
  const code = text.replace(LAZY, 'lazyBuiltin("$1")').replaceAll(UNNAMED_BUILD, buildId)
  if (/require\("node:(?:crypto|zlib|child_process|sqlite)"\)/.test(code))
    throw new Error(
      `${path} loads a part of Node at once that should wait for its first use: LAZY no longer fits what esbuild writes`,
    )
  writeFileSync(path, code)
}
