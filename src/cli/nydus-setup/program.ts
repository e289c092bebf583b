import { Command, InvalidArgumentError } from 'commander'
import manifest from '../../../package.json' with { type: 'json' }
import { type Rules, setRules, valueOption } from '../command-rules.ts'
import { addCompletion } from '../completion.ts'
import type { Output } from '../output.ts'
import type { SetupFlags } from './setup.ts'

const EXAMPLES = `
Examples:
  sudo nydus-setup --dry-run       show what would be changed
  sudo nydus-setup --restart       do it, start the snapshotter, restart containerd
  sudo nydus-setup --undo --restart

Exit codes: 0 done, or nothing to do; 1 failed or declined; 2 wrong command line.`

const RULES: Rules = {
  conflicts: [
    ['--dry-run', '--restart'],
    ['--undo', '--docker'],
  ],
  lacking: () => [],
}

export function createProgram(output: Output): Command {
  const root = new Command('nydus-setup')
    .description('Configures containerd and systemd for containerd-nydus-grpc; shows first what it changes.')
    .usage('[OPTIONS] [COMMAND]')
    .helpOption('-h, --help', 'Print help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined, outputError: () => undefined })
    .version(manifest.version, '-V, --version', 'Print version')
    .addHelpText('after', EXAMPLES)
    .enablePositionalOptions()
    .option('--dry-run', 'Show what would be changed, and change nothing')
    .option('--undo', 'Take back what it did before')
    .option('--restart', 'Start the snapshotter and restart containerd afterwards')
    .option('-y, --yes', 'Do not ask')
    .option('--docker', 'Let Docker use it too (/etc/docker/daemon.json)')
    .addOption(
      valueOption(
        '--containerd-config <containerd-config>',
        'Configuration file of containerd [default: /etc/containerd/config.toml]',
      ),
    )
    .addOption(
      valueOption(
        '--containerd-version <containerd-version>',
        'Of the containerd that will read it [default: what "containerd --version" says]',
      ).argParser(parseVersion),
    )
    .addOption(valueOption('--prefix <prefix>', 'Folder with the files of another system [default: /]'))
    .action(async (flags: SetupFlags) => {
      const { setup } = await import('./setup.ts')
      await setup(flags, output)
    })
  setRules(root, RULES)
  addCompletion(root)
  return root
}

function parseVersion(text: string): { major: number; minor: number } {
  const parts = /^v?(\d{1,3})\.(\d{1,3})(?:\..*)?$/.exec(text)
  if (parts === null) throw new InvalidArgumentError('write it as 1.7 or 2.1.4')
  return { major: Number(parts[1]), minor: Number(parts[2]) }
}
