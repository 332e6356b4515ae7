// A failure as a shell script: the same words for blk and for QEMU's tools, and then the questions.
import { qemuIoCommand } from "../guest-ops.mjs";

/**
 * @param {import("./plan.mjs").Plan} plan
 * @param {readonly import("./plan.mjs").Step[]} done - the steps that were done
 * @param {string} message - what was seen
 */
export function scriptOf({ seed }, done, message) {
  const lines = [
    "#!/bin/sh",
    `# Plan ${seed}.`,
    ...message.split("\n").map((line) => `# ${line}`),
    "# blk works in ./a and QEMU's tools in ./b; after a swap it is the other way round.",
    "mkdir -p a b",
    'ours() { (cd $ours && blk "$@"); }',
    'theirs() { (cd $theirs && "$@"); }',
    "ours=a theirs=b",
    "set -x",
    ...done.flatMap(linesOf),
    "for twin in a b; do for name in $twin/*.qcow2; do",
    "  for words in check 'map --output=json' info; do blk $words $name; qemu-img $words $name; done",
    "done; done",
    "for name in a/*.qcow2; do blk compare $name b/${name#a/}; qemu-img compare $name b/${name#a/}; done",
  ];
  return `${lines.join("\n")}\n`;
}

function linesOf(step) {
  switch (step.does) {
    case "raw":
      if (step.noise)
        return [`head -c ${step.length} /dev/urandom >a/${step.name}; cp a/${step.name} b`];
      return [
        `qemu-img create -q -f raw a/${step.name} ${step.length}`,
        `qemu-io -f raw -c 'write -P 7 0 ${Math.floor(step.length / 1024) * 512}' a/${step.name}`,
        `cp a/${step.name} b/${step.name}`,
      ];
    case "adopt":
      return [`mv a/${step.from} a/${step.to}; mv b/${step.from} b/${step.to}`];
    case "spoil":
      return [`ours io -f qcow2 -c 'write -P 1 ${step.offset} 512' top.qcow2`];
    case "swap":
      return ["swap=$ours ours=$theirs theirs=$swap"];
    case "damage": {
      const words = step.words.join(" ").replace("@", "");
      return [
        "cp $theirs/* $ours",
        `for twin in a b; do node damage.mjs $twin/${step.image.slice(1)} ${step.what} ${step.at}; done`,
        `ours ${words}; theirs qemu-img ${words}`,
      ];
    }
    case "io": {
      const words = `-f qcow2 -c '${qemuIoCommand(step.op).replace("@", "")}' ${step.image.slice(1)}`;
      return [`ours io ${words}; theirs qemu-io ${words}`];
    }
    default: {
      const words = step.words.map((word) => quoted(word.replace(/^@/, ""))).join(" ");
      return [`ours ${words}; theirs qemu-img ${words}`];
    }
  }
}

function quoted(word) {
  return /^[\w.,=+\-/]+$/.test(word) ? word : `'${word}'`;
}
