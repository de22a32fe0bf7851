/** What the app says, in English and Chinese. */

import { oneLine } from "../edgekit-runtime/errors.js";

const EN = {
  adapter: "Adapter",
  adapters: "Adapters",
  menu: "Menu",
  close: "Close",
  answers: "Answers",
  base: "no adapter",
  text: "Text",
  form: "Form",
  inputKind: "How to ask",
  promptLabel: "Your question",
  promptHint: "Describe what you see…",
  send: "Send",
  stop: "Stop",
  copy: "Copy",
  copied: "Copied",
  emptyTitle: "Ready",
  emptyText: "Everything stays on this device. Ask below; change the adapter at the top at any time.",
  welcome: "Set up {name}",
  size: "{mb} MB will be kept on this device, so that it answers without a connection. {room}",
  room: "The browser offers {room}.",
  download: "Download {mb} MB",
  goOn: "Go on ({mb} MB left)",
  pause: "Pause",
  downloading: "{loaded} of {total} MB",
  starting: "Starting the engine…",
  paused: "Paused. What has come is kept.",
  retry: "Try again",
  installFile: "Install a file",
  install: "Install",
  adapterUrl: "Address of an adapter file",
  rollback: "Roll back",
  installed: "{name} {version} is active.",
  rolledBack: "The state before is active again.",
  installing: "Checking and installing…",
  active: "active",
  activate: "Activate",
  unverified: "unverified",
  trusted: "Only adapters signed by a key of this site are installed: choose the file and its .sig together.",
  untrusted: "This site names no key, so adapters are installed without a signature.",
  history: "History",
  clearHistory: "Clear history",
  noHistory: "Nothing yet",
  about: "About",
  language: "Language",
  report: "Proof of quality",
  version: "Bundle",
  quantization: "Base",
  memory: "Storage",
  threads: "Threads",
  generation: "Generation",
  upgrade: "{name} {version} is ready.",
  use: "Get it",
  upgrading: "Getting the new version…",
  newApp: "A new version of this app is ready.",
  reload: "Reload",
  speed: "{seconds} s to the first word, {tps} tokens/s",
  cancelled: "stopped",
  length: "cut off",
  addField: "Add a field",
  fieldName: "Field",
  fieldValue: "Value",
  takePhoto: "Take a photo",
  pickPhoto: "Choose a picture",
  dropPhoto: "Remove",
  photo: "The picture",
  imageHint: "Ask about the picture, or just send it",
  examples: "Examples",
  reading: "Reading the question…",
  readTokens: "Reading the question: {read} of {total} tokens",
};

const ZH = {
  adapter: "适配器",
  adapters: "适配器",
  menu: "菜单",
  close: "关闭",
  answers: "回答",
  base: "不用适配器",
  text: "文字",
  form: "表单",
  inputKind: "提问方式",
  promptLabel: "你的问题",
  promptHint: "描述你看到的情况…",
  send: "发送",
  stop: "停止",
  copy: "复制",
  copied: "已复制",
  emptyTitle: "准备就绪",
  emptyText: "所有内容都留在本设备上。在下方提问；可随时在上方切换适配器。",
  welcome: "安装 {name}",
  size: "将在本设备上保存 {mb} MB，之后无需网络即可回答。{room}",
  room: "浏览器可提供 {room}。",
  download: "下载 {mb} MB",
  goOn: "继续（还剩 {mb} MB）",
  pause: "暂停",
  downloading: "{loaded} / {total} MB",
  starting: "正在启动引擎…",
  paused: "已暂停，已下载的部分会保留。",
  retry: "重试",
  installFile: "从文件安装",
  install: "安装",
  adapterUrl: "适配器文件的网址",
  rollback: "回滚",
  installed: "{name} {version} 已启用。",
  rolledBack: "已恢复到之前的状态。",
  installing: "正在检查并安装…",
  active: "使用中",
  activate: "启用",
  unverified: "未验证",
  trusted: "只安装由本站密钥签名的适配器：请同时选择文件及其 .sig。",
  untrusted: "本站未指定密钥，安装适配器时不检查签名。",
  history: "历史记录",
  clearHistory: "清除历史记录",
  noHistory: "暂无记录",
  about: "关于",
  language: "语言",
  report: "质量证明",
  version: "模型包",
  quantization: "基座",
  memory: "存储",
  threads: "线程",
  generation: "版本代",
  upgrade: "{name} {version} 可用。",
  use: "获取",
  upgrading: "正在获取新版本…",
  newApp: "本应用有新版本。",
  reload: "重新加载",
  speed: "首字 {seconds} 秒，{tps} 词元/秒",
  cancelled: "已停止",
  length: "已截断",
  addField: "添加一项",
  fieldName: "项目",
  fieldValue: "内容",
  takePhoto: "拍照",
  pickPhoto: "选择图片",
  dropPhoto: "移除",
  photo: "图片",
  imageHint: "就图片提问，或直接发送",
  examples: "示例",
  reading: "正在读取问题…",
  readTokens: "正在读取问题：{read} / {total} 词元",
};

/** Errors by their code; English ones say it themselves. */
const ZH_ERRORS = {
  network: "网络连接失败。请检查网络后重试：下载会从中断处继续。",
  quota: "空间不足：需要 {needed} MB，浏览器只剩 {left} MB。请清理设备空间，或改用普通窗口（非无痕模式）。",
  storage: "浏览器不允许本页面保存数据。请用普通窗口（非无痕模式）通过 https 打开。",
  memory: "本页面内存不足。请关闭其他标签页和应用，或使用更小的模型。",
  unsupported:
    "此浏览器不支持本页面（{missing}）。请使用 Chrome 113、Safari 17、Firefox 121 或更新版本，并通过 https 打开。",
  signature: "{label} 未签名、已被改动，或签名者不受本站信任。",
  family: "{label} 不适用于此基座：它属于 {theirs}，而基座是 {ours}。",
  damaged: "文件已损坏：{label}。请重新复制或导出。",
  input: "无法使用：{detail}",
  usage: "无法使用：{detail}",
  context: "提问过长，请缩短。",
  engine: "引擎出错：{detail}。请重新加载页面。",
};

const KEY = "edgekit language";
let language = localStorage.getItem(KEY) ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export function currentLanguage() {
  return language;
}

/** @param {"en" | "zh"} next */
export function setLanguage(next) {
  language = next;
  localStorage.setItem(KEY, next);
  translatePage();
}

/** @param {string} key @param {Record<string, string | number>} [facts] */
export function say(key, facts = {}) {
  return filled((language === "zh" ? ZH : EN)[key], facts);
}

/** An error for the person in front of the screen, in one line: files of others have named what is in it.  @param {any} error */
export function explain(error) {
  const pattern = language === "zh" ? ZH_ERRORS[error.code] : undefined;
  if (!pattern) return oneLine(error.message || String(error));
  return oneLine(
    filled(pattern, { detail: error.problem, label: error.facts?.file ?? "", missing: "", ...error.facts }),
  );
}

/** Put the texts into the elements that name them. */
export function translatePage() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of marked("text")) element.textContent = say(element.dataset.text);
  for (const element of marked("label")) element.setAttribute("aria-label", say(element.dataset.label));
  for (const element of marked("alt")) element.alt = say(element.dataset.alt);
  for (const element of marked("placeholder")) element.placeholder = say(element.dataset.placeholder);
}

/** @param {string} what @returns {NodeListOf<any>} */
function marked(what) {
  return document.querySelectorAll(`[data-${what}]`);
}

function filled(pattern, facts) {
  return pattern.replace(/\{(\w+)\}/g, (_, name) => facts[name] ?? "?");
}
