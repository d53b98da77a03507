import tab from '@bomb.sh/tab/commander';
import type { Command } from 'commander';
import type { Io } from '../session.ts';
import { completeInstances } from './complete-instances.ts';
import { examples } from './kit.ts';

// What fits where is found by @bomb.sh/tab through the hidden command `complete`. The scripts that
// ask it are ours: the library's evaluate the line being typed, so that Tab would already run a
// `$(...)` in it, and want the bash-completion package.

const scripts = {
  bash: `# bash completion for bulkhead
_bulkhead() {
  local value rest
  COMPREPLY=()
  while IFS=$'\\t' read -r value rest; do
    [[ $value == :* ]] || [[ $value != "\${COMP_WORDS[COMP_CWORD]}"* ]] || COMPREPLY+=("$value")
  done < <(bulkhead complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _bulkhead bulkhead
`,
  zsh: `#compdef bulkhead
_bulkhead() {
  local -a found
  local line
  while IFS= read -r line; do
    [[ $line == :* ]] || found+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
  done < <(bulkhead complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
  (( $#found )) && _describe bulkhead found || _files
}
if [[ $funcstack[1] == _bulkhead ]]; then _bulkhead "$@"; else compdef _bulkhead bulkhead; fi
`,
  fish: `# fish completion for bulkhead
function __bulkhead_complete
    set -l words (commandline -opc) (commandline -ct)
    bulkhead complete -- $words[2..] 2>/dev/null | string match -v -r '^:'
end
complete -c bulkhead -a '(__bulkhead_complete)'
`,
};

/** `completion SHELL` prints a script for the shell. To be called when all commands are there. */
export function completionCommands(program: Command, io: Io): void {
  tab(program, { completionCommandName: 'completion' });
  const command = program.commands.find((one) => one.name() === 'completion');
  if (command === undefined) throw new Error('@bomb.sh/tab has made no command');
  const complete = program.commands.find((one) => one.name() === 'complete');
  if (complete !== undefined) completeInstances(program, complete, io);
  command.description('Print a completion script for your shell');
  command.registeredArguments[0]?.choices(Object.keys(scripts)).argRequired();
  const { writeOut } = program.configureOutput();
  command.action((shell: keyof typeof scripts) => writeOut?.(scripts[shell]));
  examples(command, [
    'completion bash >> ~/.bashrc',
    'completion zsh > "${fpath[1]}/_bulkhead"',
    'completion fish > ~/.config/fish/completions/bulkhead.fish',
  ]);
}
