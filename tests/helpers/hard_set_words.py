"""Words and sentences that `hard_set` combines. All written for it; silly when combined, but each in its language."""

# ruff: noqa: SIM905 - text as it is written; lists of words as text

from __future__ import annotations


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


# Subjects and predicates: each subject goes with each predicate.
SUBJECTS = {
    "zh-Hans": (
        "这座城市 我们的团队 新版本的软件 该模型 当地居民 这种材料 研究人员 图书馆 学校的老师 他的祖父 这家餐厅 昨天的会议 两国政府 普通用户 系统管理员 这幅画 那条河 火车站 医院 农民 市场 博物馆 这本书 "
        "实验室"
    ).split(),
    "zh-Hant": (
        "這座城市 我們的團隊 新版本的軟體 該模型 當地居民 這種材料 研究人員 圖書館 學校的老師 他的祖父 這家餐廳 昨天的會議 兩國政府 一般使用者 系統管理員 這幅畫 那條河 火車站 醫院 農民 市場 博物館 "
        "這本書 實驗室"
    ).split(),
    "yue": "呢個城市 我哋嘅團隊 新出嘅軟件 佢阿爺 嗰間餐廳 尋日嘅會議 圖書館嘅職員 學校嘅老師 呢幅畫 街市嘅檔主 醫院嘅醫生 呢本書 我阿媽 啲遊客 隔籬屋嘅細路".split(),
    "ja": (
        "この都市は 私たちの研究班は 新しい版のソフトウェアは このモデルは 地元の住民は この材料は 研究者は 図書館は 学校の先生は 彼の祖父は この食堂は 昨日の会議は 両国政府は 一般の利用者は 管理者は この絵は "
        "その川は 駅は 病院は 農家は 市場は 博物館は この本は 実験室は"
    ).split(),
    "ko": tuple(
        (
            "이 도시는|우리 연구팀은|새로운 버전의 소프트웨어는|이 모델은|지역 주민들은|이 재료는|연구자들은|도서관은|학교 선생님은|그의 할아버지는|이 식당은|어제 회의는|양국 정부는|일반 "
            "사용자는|관리자는|이 그림은|그 강은|기차역은|병원은|농민들은|시장은|박물관은|이 책은|실험실은"
        ).split("|")
    ),
    "en": _lines("""This city
        Our research team
        The new version of the software
        The model
        A group of local residents
        This kind of material
        Most of the researchers
        The public library
        The teacher at our school
        His grandfather
        That small restaurant
        Yesterday's meeting
        The government of each country
        An ordinary user
        The system administrator
        The painting on the wall
        The river behind the village
        The old railway station
        The children's hospital
        A farmer from the north
        The night market
        The museum of science
        This book about birds
        Their laboratory"""),
}
PREDICATES = {
    "zh-Hans": (
        "在去年进行了大规模的改造。 已经完成了第一阶段的工作。 提供了更稳定的性能。 每天接待上千名游客。 需要重新安装驱动程序。 对环境没有明显的影响。 受到很多人的欢迎。 位于市中心的北边。 从明年开始实行新的规定。 "
        "会在下个月发布详细的报告。 与三年前相比增长了两倍。 只能在晴天使用。 请您先阅读说明再继续操作。 让我想起了小时候的夏天。 把所有的数据都保存在本地。 不支持旧的文件格式。 是为了解决这个问题而建立的。 "
        "终于在昨天晚上恢复了正常。 看起来比照片里更漂亮。 由五个部分组成，每个部分都可以单独打开。"
    ).split(),
    "zh-Hant": (
        "在去年進行了大規模的改造。 已經完成了第一階段的工作。 提供了更穩定的效能。 每天接待上千名遊客。 需要重新安裝驅動程式。 對環境沒有明顯的影響。 受到很多人的歡迎。 位於市中心的北邊。 從明年開始實行新的規定。 "
        "會在下個月發布詳細的報告。 與三年前相比增加了兩倍。 只能在晴天使用。 請您先閱讀說明再繼續操作。 讓我想起了小時候的夏天。 把所有的資料都儲存在本機。 不支援舊的檔案格式。 是為了解決這個問題而建立的。 "
        "終於在昨天晚上恢復了正常。 看起來比照片裡更漂亮。 由五個部分組成，每個部分都可以單獨打開。"
    ).split(),
    "yue": "舊年開始就唔同晒。 係我見過最靚嘅。 聽日先至會返嚟。 唔使等咁耐㗎。 已經搬咗去第二度。 俾好多人鬧過。 冇乜嘢好講。 喺度食咗成個下晝。 話畀我知應該點做。 同三年前差好遠。 而家重未搞掂。 點解會變成咁樣。".split(),
    "ja": (
        "昨年に大規模な改修が行われた。 すでに第一段階の作業を終えています。 より安定した性能を提供します。 毎日千人以上の観光客を迎えている。 ドライバーを入れ直す必要があります。 環境に目立った影響を与えない。 "
        "多くの人に親しまれている。 市の中心部の北にあります。 来年から新しい規則を適用する。 来月に詳しい報告書を公開する予定だ。 三年前と比べて二倍に増えた。 晴れた日にしか使えません。 "
        "説明を読んでから操作を続けてください。 子供のころの夏を思い出させる。 すべてのデータを手元に保存する。 古い形式のファイルには対応していません。 この問題を解決するために作られた。 昨夜ようやく元に戻った。 "
        "写真で見るよりもきれいだ。 五つの部分からなり、それぞれ別に開くことができる。"
    ).split(),
    "ko": _lines("""작년에 대규모로 개조되었다.
        이미 첫 단계의 작업을 마쳤습니다.
        더 안정적인 성능을 제공합니다.
        매일 천 명이 넘는 관광객을 맞이한다.
        드라이버를 다시 설치해야 합니다.
        환경에 뚜렷한 영향을 주지 않는다.
        많은 사람들에게 사랑받고 있다.
        시내 중심의 북쪽에 있습니다.
        내년부터 새로운 규정을 적용한다.
        다음 달에 자세한 보고서를 공개할 예정이다.
        삼 년 전과 비교하면 두 배로 늘었다.
        맑은 날에만 사용할 수 있습니다.
        어린 시절의 여름을 떠올리게 한다.
        모든 자료를 내부에 저장한다.
        오래된 파일 형식을 지원하지 않습니다."""),
    "en": _lines("""was rebuilt on a large scale last year.
        has already finished the first part of the work.
        offers a more stable performance than before.
        welcomes more than a thousand visitors every day.
        needs to be installed again before it can be used.
        has no visible effect on the environment.
        is loved by many people in the region.
        can be found to the north of the centre.
        will follow the new rules from next year on.
        is going to publish a detailed report next month.
        has doubled in size since three years ago.
        can only be used when the weather is fine.
        reminds me of the summers when I was a child.
        keeps all of its data in one place.
        does not support the old file format.
        was made to solve exactly this problem.
        looked better than in the photographs.
        consists of five parts that open separately."""),
}

# Words of two characters that make headings in pairs (設定 + 方法). Those of one line exist in that language's writing only
# by custom: many are spelt the same in the next.
PAIRS = {
    "ja": (
        (
            "設定 利用 操作 登録 接続 検索 画像 編集 印刷 保存 変更 管理 基本 詳細 会員 製品 安全 品質 料金 契約 観光 交通 施設 研究 教育 歴史 文化 経済 政治 環境 医療 健康 食品 気象 "
            "災害 地域 国際 技術 情報 電子 音声 動画 数値 統計 実験 測定 資料 文書 言語 記号 用語 関連 新規 標準 高度 初期 自動 手動 外部 内部 仮想 共通 個人 法人 公共 住宅 建築 農業 "
            "水産 工業 商業 金融 保険 税務 労働 雇用 年金 予算"
        ).split(),
        (
            "方法 手順 概要 一覧 条件 規約 機能 項目 画面 設定 情報 例外 注意 対応 事項 範囲 形式 種類 構成 構造 状況 結果 計画 制度 基準 資格 窓口 案内 地図 年表 図表 比較 分析 評価 "
            "対策 課題 目的 効果 原因 影響 変化 履歴 記録 報告 会議 組織 団体 企業 施設 設備 区分 単位 番号 名称 期間 時間 料金 費用 金額 要件 仕様 環境 動作 処理 命令 関数 変数"
        ).split(),
    ),
    "zh-Hans": (
        (
            "系统 用户 软件 网络 文件 数据 图像 编辑 打印 保存 更改 管理 基本 详细 会员 产品 安全 质量 费用 合同 旅游 交通 设施 研究 教育 历史 文化 经济 政治 环境 医疗 健康 食品 气象 "
            "灾害 地区 国际 技术 信息 电子 语音 视频 数值 统计 实验 测量 资料 文档 语言 符号 术语 相关 新建 标准 高级 初始 自动 手动 外部 内部 虚拟 公共 个人 住宅 建筑 农业 水产 工业 "
            "商业 金融 保险 税务 劳动 就业 养老 预算"
        ).split(),
        (
            "方法 步骤 概述 列表 条件 协议 功能 项目 界面 设置 信息 例外 须知 支持 事项 范围 格式 种类 组成 结构 状况 结果 计划 制度 标准 资格 窗口 指南 地图 年表 图表 比较 分析 评价 "
            "对策 课题 目的 效果 原因 影响 变化 历史 记录 报告 会议 组织 团体 企业 设施 设备 分类 单位 编号 名称 期限 时间 价格 费用 金额 要求 规格 环境 运行 处理 命令 函数 变量"
        ).split(),
    ),
    "zh-Hant": (
        (
            "系統 使用 軟體 網路 檔案 資料 影像 編輯 列印 儲存 變更 管理 基本 詳細 會員 產品 安全 品質 費用 合約 旅遊 交通 設施 研究 教育 歷史 文化 經濟 政治 環境 醫療 健康 食品 氣象 "
            "災害 地區 國際 技術 資訊 電子 語音 影片 數值 統計 實驗 測量 文件 語言 符號 術語 相關 新增 標準 進階 初始 自動 手動 外部 內部 虛擬 公共 個人 住宅 建築 農業 水產 工業 商業 "
            "金融 保險 稅務 勞動 就業 退休 預算"
        ).split(),
        (
            "方法 步驟 概述 清單 條件 合約 功能 項目 畫面 設定 資訊 例外 須知 支援 事項 範圍 格式 種類 組成 結構 狀況 結果 計畫 制度 標準 資格 視窗 指南 地圖 年表 圖表 比較 分析 評價 "
            "對策 課題 目的 效果 原因 影響 變化 歷史 記錄 報告 會議 組織 團體 企業 設施 設備 分類 單位 編號 名稱 期限 時間 價格 費用 金額 要求 規格 環境 執行 處理 命令 函數 變數"
        ).split(),
    ),
}
SINGLES = {  # nodes of one to three characters
    "ja": (
        "例 図 表 注 序 第一章 第二節 目次 索引 付録 概要 背景 序論 結論 謝辞 参考文献 警告 注意 補足 前提 質問 回答 東京都 京都市 北海道 大阪府 出典 脚注 外部 人物 作品 受賞歴 略歴 生涯 "
        "年譜 家族 地理 気候 人口 産業 教育 交通 観光 姉妹都市 名所 祭事 削除 追加 検索 印刷 戻る 次へ はい いいえ 終了 保存 開く 閉じる 完了 失敗 成功 不明 有効 無効 除算 分岐"
    ).split(),
    "zh-Hans": (
        "例 图 表 注 序 第一章 第二节 目录 索引 附录 概述 背景 引言 结论 致谢 参考文献 警告 注意 补充 前提 问题 回答 北京市 上海市 四川省 广东省 来源 脚注 外部 人物 作品 获奖 简介 生平 年谱 "
        "家庭 地理 气候 人口 产业 教育 交通 旅游 友好城市 景点 节日 删除 添加 搜索 打印 返回 下一步 是 否 退出 保存 打开 关闭 完成 失败 成功 未知 启用 禁用 除法 分支"
    ).split(),
    "zh-Hant": (
        "例 圖 表 註 序 第一章 第二節 目錄 索引 附錄 概述 背景 引言 結論 致謝 參考文獻 警告 注意 補充 前提 問題 回答 臺北市 高雄市 新竹縣 花蓮縣 來源 腳註 外部 人物 作品 獲獎 簡介 生平 年譜 "
        "家庭 地理 氣候 人口 產業 教育 交通 旅遊 姊妹市 景點 節日 刪除 新增 搜尋 列印 返回 下一步 是 否 離開 儲存 開啟 關閉 完成 失敗 成功 不明 啟用 停用 除法 分支"
    ).split(),
}
HANJA = (
    "大韓民國 憲法 民主共和國 主權 國民 權力 自由 平等 社會 經濟 文化 歷史 政府 國會 法院 選擧 改革 統一 外交 安保 敎育 科學 技術 産業 農村 都市 環境 保健 勞動 福祉 靑年 女性 家族 傳統 佛敎 "
    "儒敎 文學 詩 小說 音樂 美術 演劇 映畵 放送 新聞 言論 世界 東洋 西洋 中國 日本 美國 北韓 戰爭 平和"
).split()
KOREAN_ENDINGS = _lines("""{0}은 {1}의 基本이다.
    {0}과 {1}을 위한 硏究가 始作되었다.
    우리 {0}의 {1}는 오랜 傳統을 가지고 있다.
    {0}에 대한 {1}의 影響을 檢討하였다.
    {0}은 {1}에 있고, 모든 것은 {1}로부터 나온다.
    이 글은 {0}(와) {1}(의) 關係를 다룬다.
    {0} 問題를 {1} 次元에서 解決해야 한다.
    政府, {0} 對策 발표… {1}계 "환영"
    국립{0}연구소({1})에서 발표한 자료이다.
    그는 {0}({1})를 전공한 학자이다.""")

QUOTES = (
    "民主 自由 你好 谢谢 再见 春节 中秋节 功夫 豆腐 麻婆豆腐 饺子 炒面 北京 上海 清华大学 長城 孔子 論語 道德經 紅樓夢 己所不欲，勿施於人 學而時習之，不亦說乎 三人行，必有我師 我是学生 我爱你 新年快乐 "
    "一帆风顺 马马虎虎 加油 关系 面子 风水 阴阳 太极拳 汉字 普通话 粤语 繁體字 简体字 龍 茶 道 仁 中华人民共和国 台灣"
).split()
AROUND = _lines("""The word {0} is often translated as something quite different.
    In Chinese, {0} is written with the same characters as a hundred years ago.
    She wrote {0} on the blackboard and asked us to copy it.
    The sign above the door says {0}, which nobody in the family could read.
    He greeted every guest with a loud “{0}” and a small bow.
    The term ({0}) first appears in a letter of 1842.
    What does {0} mean in English, and where does it come from?
    Her favourite saying was “{0}”, but she never told us who wrote it.
    My teacher explained that {0} has no exact equivalent in other languages.
    The chapter about {0} is the longest one in the whole book.
    Das Wort {0} lässt sich nur schwer ins Deutsche übersetzen.
    Der Ausdruck „{0}“ steht heute auf vielen alten Münzen.
    Le mot {0} est souvent traduit de plusieurs façons différentes.
    La expresión {0} aparece por primera vez en una carta muy antigua.
    Слово {0} часто переводят на русский язык по-разному.
    Từ {0} thường được dịch theo nhiều cách khác nhau trong sách.
    Ordet {0} är svårt att översätta till andra språk.
    Two characters, {0}, were carved into the stone near the old bridge.""")

PINYIN = (
    "wo men zai bei jing de da xue li xue xi zhong wen | ni hao ma wo hen hao xie xie | zhe ge cheng shi you hen duo "
    "lao fang zi | ta zuo tian wan shang cai hui jia | qing wen huo che zhan zen me zou | xin nian kuai le wan shi "
    "ru yi | ming tian hui bu hui xia yu | wo de peng you xi huan he cha | women zuotian qule bowuguan kan hua | "
    "zhongguo de shoudu shi beijing | tushuguan jiudian cai kai men | laoshi rang women du zhe ben shu"
).split(" | ")
TONED = (
    "wǒmen zài běijīng de dàxué lǐ xuéxí zhōngwén | nǐ hǎo ma? wǒ hěn hǎo, xièxie | zhège chéngshì yǒu hěn duō lǎo "
    "fángzi | tā zuótiān wǎnshang cái huí jiā | qǐngwèn huǒchēzhàn zěnme zǒu | xīnnián kuàilè, wànshì rúyì | Lí hó, "
    "góa sī Tâi-oân lâng | Goán tau tòa tī Tâi-lâm | Chiah-pá bōe? Lâi chē lah | ngo5 dei6 hai2 hoeng1 gong2 duk6 "
    "syu1 | nei5 hou2 maa3, zou2 san4 | Pei-ching ta-hsüeh shih Chung-kuo ti ming hsiao"
).split(" | ")

COMMENTS = (
    "打开文件并读取内容 初始化所有变量 如果列表为空则返回 计算平均值 遍历每一个元素 关闭数据库连接 检查输入是否合法 这里可能会抛出异常 保存结果到磁盘 等待线程结束 更新界面上的文字 删除临时目录 設定預設的參數 "
    "讀取使用者的資料 將結果輸出到畫面 處理錯誤的情況"
).split()
LISTINGS = _lines("""def load(path):  # {0}|    with open(path) as handle:|        return handle.read()  # {1}
    // {0}|for (int i = 0; i < n; i++) {{|    total += values[i];  // {1}|}}
    /* {0} */|int main(void) {{|    return run(argc, argv); /* {1} */|}}
    import os|import sys||# {0}|root = os.path.join(base, "data")|# {1}|items = sorted(os.listdir(root))
    SELECT id, name FROM users WHERE age > 18; -- {0}|UPDATE users SET active = 1; -- {1}
    public class Main {{|    // {0}|    public static void main(String[] args) {{|        new Server().start(8080); // {1}|    }}|}}
    #!/bin/sh|# {0}|set -e|for f in *.txt; do mv "$f" "$DIR/"; done|# {1}
    const el = document.getElementById("main"); // {0}|el.addEventListener("click", () => render(el)); // {1}""")
LITERALS = _lines("""print("{0}")|logger.info("{1}", count)
    std::cout << "{0}" << std::endl;|return label("{1}");
    const texts = {{ title: "{0}", body: "{1}" }};|show(texts);
    <string name="app_title">{0}</string>|<string name="app_body">{1}</string>|// generated file, do not edit by hand
    assert translate("{0}") == "open file"  # the first entry|assert translate("{1}") == "close"  # and the last one""")
TERMS = (
    "Visual Studio|Azure DevOps|GitHub Actions|Kubernetes|Docker Compose|Microsoft Word|Python|JavaScript|Adobe "
    "Photoshop|Release Pipeline|API Gateway|Wi-Fi|USB Type-C|iPhone 15 Pro|Windows 11|machine learning|deep "
    "learning|Transformer|ResNet-50|BERT"
).split("|")
ABOUT_TERMS = _lines("""在 {0} 中使用 {1} 创建一个新的项目
    请先安装 {0}，然后打开 {1}
    如何把 {0} 的设置导入到 {1}？
    {0} 和 {1} 有什么区别
    本节介绍 {0} 与 {1} 的基本概念
    {0} 支持通过 {1} 自动更新
    透過 {0} 將檔案上傳至 {1}
    從 {0} 切換到 {1} 時請先儲存檔案""")
