"""Signs that are read aloud, written out in a language: percent, currencies, degrees, units, fractions, & + = @ № § ×.

What a language's rows below lack stays as it is, but for currencies, which have their English names there. Fractions
and raised or lowered digits that no row has become ordinary digits, so that none is lost.
"""

import functools
import re
import unicodedata

# Each row: the signs in the order of _SIGNS. Forms for 1 and for other numbers are separated by a bar; in Slavic
# languages for 1, for 2 to 4 (and decimals) and for others. "-" stands for a sign that is not read.
_SIGNS = ("%", "&", "+", "=", "@", "°", "€", "$", "£", "¥", "№", "²", "³")
_ROWS = """
en: percent; and; plus; equals; at; degree|degrees; euro|euros; dollar|dollars; pound|pounds; yen; number; squared; cubed
es: por ciento; y; más; igual a; arroba; grado|grados; euro|euros; dólar|dólares; libra|libras; yen|yenes; número; cuadrado; cúbico
fr: pour cent; et; plus; égale; arobase; degré|degrés; euro|euros; dollar|dollars; livre|livres; yen|yens; numéro; carré; cube
de: prozent; und; plus; gleich; at; grad; euro; dollar; pfund; yen; nummer; quadrat; kubik
it: per cento; e; più; uguale; chiocciola; grado|gradi; euro; dollaro|dollari; sterlina|sterline; yen; numero; quadrato; cubo
pt: por cento; e; mais; igual a; arroba; grau|graus; euro|euros; dólar|dólares; libra|libras; iene|ienes; número; quadrado; cúbico
ca: per cent; i; més; igual a; arrova; grau|graus; euro|euros; dòlar|dòlars; lliura|lliures; ien|iens; número; quadrat; cúbic
nl: procent; en; plus; is; apenstaartje; graden; euro; dollar; pond; yen; nummer; kwadraat; kubiek
sv: procent; och; plus; lika med; -; grad|grader; euro; dollar; pund; yen; nummer; kvadrat; kubik
da: procent; og; plus; lig med; -; grad|grader; euro; dollar; pund; yen; nummer; -; -
no: prosent; og; pluss; er lik; -; grad|grader; euro; dollar; pund; yen; nummer; -; -
ru: процент|процента|процентов; и; плюс; равно; собака; градус|градуса|градусов; евро; доллар|доллара|долларов; фунт|фунта|фунтов; иена|иены|иен; номер; квадрат; куб
uk: відсоток|відсотки|відсотків; і; плюс; дорівнює; -; градус|градуси|градусів; євро; долар|долари|доларів; фунт|фунти|фунтів; єна|єни|єн; номер; квадрат; куб
pl: procent; i; plus; równa się; małpa; stopień|stopnie|stopni; euro; dolar|dolary|dolarów; funt|funty|funtów; jen|jeny|jenów; numer; kwadrat; -
tr: yüzde; ve; artı; eşittir; et; derece; euro; dolar; sterlin; yen; numara; kare; küp
id: persen; dan; plus; sama dengan; -; derajat; euro; dolar; -; yen; nomor; -; -
vi: phần trăm; và; cộng; bằng; a còng; độ; euro; đô la; bảng; yên; số; vuông; khối
ar: بالمئة; و; زائد; يساوي; -; درجة; يورو; دولار; جنيه; ين; رقم; مربع; مكعب
fa: درصد; و; به علاوه; مساوی; -; درجه; یورو; دلار; پوند; ین; شماره; -; -
ja: パーセント; -; プラス; イコール; -; 度; ユーロ; ドル; ポンド; 円; -; -; -
zh: 百分之; 和; 加; 等于; -; 度; 欧元; 美元; 英镑; 元; 号; 平方; 立方
ko: 퍼센트; -; 플러스; -; -; 도; 유로; 달러; 파운드; 엔; -; -; -
lv: procents|procenti; un; plus; -; -; grāds|grādi; eiro; dolārs|dolāri; -; -; numurs; -; -
sl: odstotkov; in; plus; -; -; stopinj; evrov; dolarjev; -; -; številka; -; -
he: אחוז; -; פלוס; שווה; -; מעלות; אירו; דולר; פאונד
el: τοις εκατό; και; συν; ίσον; -; βαθμός|βαθμοί; ευρώ; δολάριο|δολάρια; λίρα|λίρες
hu: százalék; és; plusz; egyenlő; -; fok; euró; dollár; font
cs: procent; a; plus; rovná se; -; stupeň|stupňů; euro|eur; dolar|dolarů; libra|liber
sk: percent; a; plus; rovná sa; -; stupeň|stupňov; euro|eur; dolár|dolárov; libra|libier
ro: la sută; și; plus; egal; -; grad|grade; euro; dolar|dolari; liră|lire
fi: prosenttia; ja; plus; on yhtä kuin; -; aste|astetta; euro|euroa; dollari|dollaria; punta|puntaa
bg: процента; и; плюс; равно на; -; градус|градуса; евро; долар|долара; паунд|паунда
sr: посто; и; плус; једнако; -; степени; евра; долара; фунти
hr: posto; i; plus; jednako; -; stupnjeva; euro|eura; dolar|dolara; funta|funti
lt: procentų; ir; plius; lygu; -; laipsnių; euras|eurų; doleris|dolerių; svaras|svarų
hi: प्रतिशत; और; प्लस; बराबर; -; डिग्री; यूरो; डॉलर; पाउंड; येन; नंबर
bn: শতাংশ; এবং; যোগ; সমান; -; ডিগ্রি; ইউরো; ডলার; পাউন্ড
th: เปอร์เซ็นต์; และ; บวก; เท่ากับ; -; องศา; ยูโร; ดอลลาร์; ปอนด์
kk: пайыз; және; плюс; тең; -; градус; еуро; доллар; фунт
cy: y cant; a; plws; yn hafal i; -; gradd; ewro; doler; punt
mn: хувь; ба; нэмэх; тэнцүү; -; хэм; евро; доллар; фунт
ta: சதவீதம்; மற்றும்; கூட்டல்; சமம்; -; டிகிரி; யூரோ; டாலர்; பவுண்டு
et: protsent|protsenti; ja; pluss; võrdub; -; kraad|kraadi; euro|eurot; dollar|dollarit; -; -; number; -; -
ur: فیصد; اور; جمع; برابر; -; ڈگری; یورو; ڈالر; پاؤنڈ
mr: टक्के; आणि; अधिक; बरोबर; -; अंश; युरो; डॉलर; पाउंड
gu: ટકા; અને; વત્તા; બરાબર; -; ડિગ્રી; યુરો; ડોલર; પાઉન્ડ
te: శాతం; మరియు; ప్లస్; సమానం; -; డిగ్రీలు; యూరోలు; డాలర్లు; పౌండ్లు
ml: ശതമാനം; -; -; -; -; ഡിഗ്രി; യൂറോ; ഡോളർ; പൗണ്ട്
pa: ਪ੍ਰਤੀਸ਼ਤ; ਅਤੇ; -; -; -; ਡਿਗਰੀ; ਯੂਰੋ; ਡਾਲਰ; ਪੌਂਡ
ne: प्रतिशत; र; -; -; -; डिग्री; युरो; डलर; पाउन्ड
az: faiz; və; üstəgəl; bərabərdir; -; dərəcə; avro; dollar; funt
be: працэнтаў; і; плюс; роўна; -; градусаў; еўра; долараў; фунтаў
mk: проценти; и; плус; еднакво; -; степени; евра; долари; фунти
ka: პროცენტი; და; -; -; -; გრადუსი; ევრო; დოლარი; ფუნტი
hy: տոկոս; և; -; -; -; աստիճան; եվրո; դոլար; ֆունտ
is: prósent; og; plús; -; -; gráður; evrur; dollarar; pund
af: persent; en; plus; -; -; grade; euro; dollar; pond
gl: por cento; e; máis; -; -; graos; euros; dólares; libras
ms: peratus; dan; tambah; -; -; darjah; euro; dolar; paun
"""  # noqa: E501
# Likewise of more signs; units only behind a number, and where numbers become words (else "5: km" would be read on the
# second time).
_MORE_SIGNS = ("‰", "¢", "₹", "₩", "₽", "§", "×", "±", "÷", "km/h", "km", "kg", "cm")
_MORE_ROWS = """
en: per mille; cent|cents; rupee|rupees; won; ruble|rubles; section; times; plus or minus; divided by; kilometer per hour|kilometers per hour; kilometer|kilometers; kilogram|kilograms; centimeter|centimeters
es: por mil; centavo|centavos; rupia|rupias; won|wones; rublo|rublos; párrafo; por; más o menos; entre; kilómetro por hora|kilómetros por hora; kilómetro|kilómetros; kilogramo|kilogramos; centímetro|centímetros
fr: pour mille; centime|centimes; roupie|roupies; won|wons; rouble|roubles; paragraphe; fois; plus ou moins; divisé par; kilomètre heure|kilomètres heure; kilomètre|kilomètres; kilogramme|kilogrammes; centimètre|centimètres
de: promille; cent; rupie|rupien; won; rubel; paragraf; mal; plus minus; geteilt durch; kilometer pro stunde; kilometer; kilogramm; zentimeter
it: per mille; centesimo|centesimi; rupia|rupie; won; rublo|rubli; paragrafo; per; più o meno; diviso; chilometro orario|chilometri orari; chilometro|chilometri; chilogrammo|chilogrammi; centimetro|centimetri
pt: por mil; centavo|centavos; rupia|rupias; won; rublo|rublos; parágrafo; vezes; mais ou menos; dividido por; quilômetro por hora|quilômetros por hora; quilômetro|quilômetros; quilograma|quilogramas; centímetro|centímetros
ca: per mil; centau|centaus; rupia|rupies; won; ruble|rubles; paràgraf; per; més o menys; dividit per; quilòmetre per hora|quilòmetres per hora; quilòmetre|quilòmetres; quilogram|quilograms; centímetre|centímetres
nl: promille; cent; roepie|roepies; won; roebel; paragraaf; keer; plus of min; gedeeld door; kilometer per uur; kilometer; kilogram; centimeter
sv: promille; cent; rupie|rupier; won; rubel; paragraf; gånger; plus minus; delat med; kilometer i timmen; kilometer; kilogram; centimeter
da: promille; cent; rupee; won; rubel; paragraf; gange; plus minus; divideret med; kilometer i timen; kilometer; kilogram; centimeter
no: promille; cent; rupi|rupier; won; rubel; paragraf; ganger; pluss minus; delt på; kilometer i timen; kilometer; kilogram; centimeter
ru: промилле; цент|цента|центов; рупия|рупии|рупий; вона|воны|вон; рубль|рубля|рублей; параграф; умножить на; плюс минус; разделить на; километр в час|километра в час|километров в час; километр|километра|километров; килограмм|килограмма|килограммов; сантиметр|сантиметра|сантиметров
uk: проміле; цент|центи|центів; рупія|рупії|рупій; вона|вони|вон; рубль|рублі|рублів; параграф; помножити на; плюс мінус; поділити на; кілометр на годину|кілометри на годину|кілометрів на годину; кілометр|кілометри|кілометрів; кілограм|кілограми|кілограмів; сантиметр|сантиметри|сантиметрів
pl: promil|promile|promili; cent|centy|centów; rupia|rupie|rupii; won|wony|wonów; rubel|ruble|rubli; paragraf; razy; plus minus; podzielić przez; kilometr na godzinę|kilometry na godzinę|kilometrów na godzinę; kilometr|kilometry|kilometrów; kilogram|kilogramy|kilogramów; centymetr|centymetry|centymetrów
tr: binde; sent; rupi; won; ruble; paragraf; çarpı; artı eksi; bölü; -; kilometre; kilogram; santimetre
id: per mil; sen; rupee; won; rubel; pasal; kali; kurang lebih; dibagi; kilometer per jam; kilometer; kilogram; sentimeter
vi: phần nghìn; xu; rupee; won; rúp; mục; nhân; cộng trừ; chia; ki lô mét trên giờ; ki lô mét; ki lô gam; xăng ti mét
ar: بالألف; سنت; روبية; وون; روبل; المادة; ضرب; زائد ناقص; قسمة; كيلومتر في الساعة; كيلومتر; كيلوغرام; سنتيمتر
fa: در هزار; سنت; روپیه; وون; روبل; بند; ضربدر; به علاوه منها; تقسیم بر; کیلومتر در ساعت; کیلومتر; کیلوگرم; سانتی متر
ja: パーミル; セント; ルピー; ウォン; ルーブル; -; かける; プラスマイナス; 割る; キロメートル毎時; キロメートル; キログラム; センチメートル
zh: 千分之; 美分; 卢比; 韩元; 卢布; -; 乘; 正负; 除以
ko: 퍼밀; 센트; 루피; 원; 루블; -; 곱하기; 플러스 마이너스; 나누기; -; 킬로미터; 킬로그램; 센티미터
lv: promile|promiles; cents|centi; rūpija|rūpijas; vona|vonas; rublis|rubļi; paragrāfs; reiz; plus mīnus; dalīts ar; kilometrs stundā|kilometri stundā; kilometrs|kilometri; kilograms|kilogrami; centimetrs|centimetri
sl: promilov; centov; rupij; vonov; rubljev; paragraf; krat; plus minus; deljeno z; kilometrov na uro; kilometrov; kilogramov; centimetrov
et: promill|promilli; sent|senti; ruupia|ruupiat; vonn|vonni; rubla; paragrahv; korda; pluss miinus; jagatud
hi: प्रति हज़ार; सेंट; रुपया|रुपये; वॉन; रूबल; धारा; गुणा; -; -
"""  # noqa: E501
_UNITS = {"km/h": "km/h|км/ч|км/год", "km": "km|км|كم", "kg": "kg|кг|كغ", "cm": "cm|см|سم"}
_CURRENCIES = "".join(c for c in map(chr, range(0xA2, 0x10000)) if unicodedata.category(c) == "Sc" and c not in "₠﷼")
# ½, ¼, ¾, ⅓ and ⅔ by themselves | behind a number.
_FRACTION_ROWS = """
en: half|and a half; quarter|and a quarter; three quarters|and three quarters; third|and a third; two thirds|and two thirds
es: medio|y medio; un cuarto|y un cuarto; tres cuartos|y tres cuartos; un tercio|y un tercio; dos tercios|y dos tercios
fr: demi|et demi; un quart|et un quart; trois quarts|et trois quarts; un tiers|et un tiers; deux tiers|et deux tiers
de: halb|einhalb; ein viertel|ein viertel; dreiviertel|dreiviertel; ein drittel|ein drittel; zwei drittel|zwei drittel
it: mezzo|e mezzo; un quarto|e un quarto; tre quarti|e tre quarti; un terzo|e un terzo; due terzi|e due terzi
pt: meio|e meio; um quarto|e um quarto; três quartos|e três quartos; um terço|e um terço; dois terços|e dois terços
ca: mig|i mig; un quart|i un quart; tres quarts|i tres quarts; un terç|i un terç; dos terços|i dos terços
nl: half|en een half; kwart|en een kwart; driekwart|en driekwart; een derde|en een derde; twee derde|en twee derde
sv: halv|och en halv; en fjärdedel|och en fjärdedel; tre fjärdedelar|och tre fjärdedelar; en tredjedel|och en tredjedel; två tredjedelar|och två tredjedelar
ru: половина|с половиной; четверть|с четвертью; три четверти|и три четверти; треть|и одна треть; две трети|и две трети
tr: yarım|buçuk; çeyrek|çeyrek; üç çeyrek|üç çeyrek; üçte bir|üçte bir; üçte iki|üçte iki
da: en halv|en halv; en fjerdedel|og en fjerdedel; tre fjerdedele|og tre fjerdedele; en tredjedel|og en tredjedel; to tredjedele|og to tredjedele
no: en halv|og en halv; en fjerdedel|og en fjerdedel; tre fjerdedeler|og tre fjerdedeler; en tredjedel|og en tredjedel; to tredjedeler|og to tredjedeler
uk: половина|з половиною; чверть|з чвертю; три чверті|і три чверті; третина|і одна третина; дві третини|і дві третини
pl: pół|i pół; jedna czwarta|i jedna czwarta; trzy czwarte|i trzy czwarte; jedna trzecia|i jedna trzecia; dwie trzecie|i dwie trzecie
id: setengah|setengah; seperempat|seperempat; tiga perempat|tiga perempat; sepertiga|sepertiga; dua pertiga|dua pertiga
vi: một nửa|rưỡi; một phần tư|một phần tư; ba phần tư|ba phần tư; một phần ba|một phần ba; hai phần ba|hai phần ba
ar: نصف|ونصف; ربع|وربع; ثلاثة أرباع|وثلاثة أرباع; ثلث|وثلث; ثلثان|وثلثان
fa: نصف|و نیم; یک چهارم|و یک چهارم; سه چهارم|و سه چهارم; یک سوم|و یک سوم; دو سوم|و دو سوم
ja: 二分の一|と二分の一; 四分の一|と四分の一; 四分の三|と四分の三; 三分の一|と三分の一; 三分の二|と三分の二
zh: 二分之一|又二分之一; 四分之一|又四分之一; 四分之三|又四分之三; 三分之一|又三分之一; 三分之二|又三分之二
ko: 이분의 일|와 이분의 일; 사분의 일|와 사분의 일; 사분의 삼|와 사분의 삼; 삼분의 일|와 삼분의 일; 삼분의 이|와 삼분의 이
lv: puse|ar pusi; ceturtdaļa|un ceturtdaļa; trīs ceturtdaļas|un trīs ceturtdaļas; trešdaļa|un trešdaļa; divas trešdaļas|un divas trešdaļas
sl: polovica|in pol; četrtina|in četrtina; tri četrtine|in tri četrtine; tretjina|in tretjina; dve tretjini|in dve tretjini
et: pool|ja pool; veerand|ja veerand; kolmveerand|ja kolmveerand; kolmandik|ja kolmandik; kaks kolmandikku|ja kaks kolmandikku
"""  # noqa: E501
_OTHER_CURRENCIES = {
    "pt": {"R$": "real|reais"},
    "uk": {"₴": "гривня|гривні|гривень"},
    "he": {"₪": "שקל"},
    "th": {"฿": "บาท"},
    "kk": {"₸": "теңге"},
    "vi": {"₫": "đồng"},
}
_MINUS = {
    **dict.fromkeys(("en", "de", "sv", "da", "no", "pl", "id"), "minus"), **dict.fromkeys(("es", "pt"), "menos"),
    "ru": "минус", "uk": "мінус", "fr": "moins", "it": "meno", "ca": "menys", "nl": "min", "tr": "eksi", "zh": "负",
    "vi": "âm", "ja": "マイナス", "ko": "마이너스", "lv": "mīnus", "sl": "minus", "et": "miinus", "fa": "منفی",
    "ar": "ناقص",
}  # fmt: skip
_CELSIUS = {"ru": "цельсия", "uk": "цельсія", **dict.fromkeys(("ar", "fa", "ja", "ko", "zh"), "")}
_PERCENT_FIRST = ("tr", "zh")
_UNCOUNTED = ("%", "‰", "°", *_UNITS)  # no cents
_BARE = "%‰&+=@№§×±÷"  # read without a number, too
_SLAVIC = ("ru", "uk", "pl")
_POINT = r"\d+(?:[.,٫\u00a0\u202f\u2009 ]\d{3})*(?:[.,٫]\d+)?"
_SCALE = (
    r"(?:\s*(?:thousand|hundred|tausend|mil|mille|mila|mil?l?i[oóõ]n\w*|millones|mill?iard\w*|milh(?:ão|ões)|milj(?:o|oe)n\w*"
    r"|bill?i[oóõ]n\w*|bilh(?:ão|ões)|trill?i[oóõ]n\w*|тысяч\w*|миллион\w*|миллиард\w*|mln|mio|bn)\b\.?)?"
)
_FORMS = str.maketrans(
    {
        "％": "%",
        "﹪": "%",
        "٪": "%",
        "＆": "&",
        "＋": "+",
        "＝": "=",
        "＠": "@",
        "￥": "¥",
        "＄": "$",
        "￡": "£",
        "㎏": "kg",
        "㎞": "km",
        "㎝": "cm",
    }
)


def written_out(text: str, language: str) -> str:
    """The text with its signs in words, where the language has words for them; numbers stay in digits.

    Args:
        text: Without invisible characters.
        language: ISO 639-1 code.
    """
    text = text.translate(_FORMS)
    words = _words(language)
    text = text.replace("℃", "°C").replace("℉", "°F")
    if words:
        minus = r"(?<![^\s(])(?:−\s?(?=\d)|-(?=[\d.,]+\s?°))"  # a hyphen may begin a line of a dialogue
        text = re.sub(minus, f" {_MINUS.get(language, ' ')} ", text)
        text = _amounts(language).sub(lambda match: _amount(match, words, language), text)
        if language in _fractions():
            text = re.sub(r"(\d\s?)?([½¼¾⅓⅔])", lambda match: _fraction(match, language), text)
        text = re.sub(r"\b[nN]\.?[º°]\s?(?=\d)", f"{words.get('№', 'n')} ", text)
        text = re.sub(r"#(?=\d)|\bNo\.\s?(?=\d)" if language == "en" else r"#(?=\d)", "№", text)
        text = re.sub(r"(?<=\w)[²³](?!\w)", lambda match: f" {words.get(match[0], _digits(match[0]))} ", text)
        text = re.sub(f"[{_BARE}{_CURRENCIES}$]", lambda match: _alone(match[0], words, language), text)
    return "".join(_digits(c) if ord(c) > 0xA0 and _is_odd_number(c) else c for c in text)


def _by_language(table: str) -> dict[str, str]:
    return dict(row.split(": ", 1) for row in table.strip().splitlines())


@functools.cache
def _fractions() -> dict[str, str]:
    return _by_language(_FRACTION_ROWS)


@functools.cache
def _words(language: str) -> dict[str, str]:
    words: dict[str, str] = {}
    for table, signs in ((_ROWS, _SIGNS), (_MORE_ROWS, _MORE_SIGNS)):
        row = _by_language(table).get(language, "").split("; ")
        words |= {sign: word for sign, word in zip(signs, row, strict=False) if word not in ("", "-")}
    names = {c: unicodedata.name(c).lower().removesuffix(" sign").split()[-1] for c in _CURRENCIES} if words else {}
    return names | words | _OTHER_CURRENCIES.get(language, {})


@functools.cache
def _amounts(language: str) -> re.Pattern[str]:
    """A number with a sign before or behind it."""
    words = sorted(_words(language), key=len, reverse=True)
    signs = "|".join(re.escape(sign) for sign in words if sign not in "&+=@№²³§×±÷" and sign not in _UNITS)
    units = "|".join(_UNITS[sign] for sign in words if sign in _UNITS) or "(?!)"
    before = rf"(?:US|A|C)?(?P<before>{signs})\s?(?P<n1>{_POINT})(?P<scale1>{_SCALE})"
    no_sign_before = rf"(?!\s(?:{signs})\d)"  # "5 $3": the sign belongs to what it touches
    sign_behind = rf"(?P<behind>{signs}|(?:{units})(?![\w/]))(?P<unit>[CF]\b)?"
    behind = rf"(?P<n2>{_POINT})(?P<scale2>{_SCALE}){no_sign_before}\s?{sign_behind}"
    return re.compile(rf"(?<!\w)(?<!\d[.,]){before}|(?<!\d)(?<!\d[.,]){behind}", re.IGNORECASE)


def _amount(match: re.Match[str], words: dict[str, str], language: str) -> str:
    sign = match["before"] or match["behind"]
    sign = next((unit for unit, forms in _UNITS.items() if sign.lower() in forms.split("|")), sign)
    number, scale = (match["n1"], match["scale1"]) if match["before"] else (match["n2"], match["scale2"])
    if match["before"] == "°" or (sign == "°" and language in ("es", "it", "pt", "ca") and not match["unit"]):
        return match[0]  # an ordinal number, which one types so
    cents = re.fullmatch(r"(.*\d)[.,](\d\d)", number) if sign not in _UNCOUNTED and not scale else None
    counted = re.sub(r"[.,\s](?=\d{3}(?!\d))", "", cents[1] if cents and cents[2] == "00" else number)
    word = _form(words[sign], counted if not scale else f"{counted}000", language)
    if sign == "°" and match["unit"]:
        word += " fahrenheit" if match["unit"] in "fF" else f" {_CELSIUS.get(language, 'celsius')}"
    if sign in "%‰" and language in _PERCENT_FIRST:
        return f" {word} {number}{scale} "
    apart = " " if match["before"] else ""  # from digits in front of the sign
    if cents:
        return f"{apart}{cents[1]} {word} {cents[2].lstrip('0')} "
    return f"{apart}{number}{scale} {word} "


def _form(forms: str, number: str, language: str) -> str:
    """The form of a word that goes with a number in digits ("" for none)."""
    singular, *others = forms.split("|")
    if not others:
        return singular
    if language in _SLAVIC:
        if not number.isdecimal():
            return others[0] if number else others[-1]
        tens, ones = int(number) // 10 % 10, int(number) % 10
        if tens == 1 or ones in (0, 5, 6, 7, 8, 9):
            return others[-1]
        if language == "pl" and ones == 1 and int(number) != 1:
            return others[-1]
        return singular if ones == 1 else others[0]
    return singular if number == "1" else others[-1]


def _alone(sign: str, words: dict[str, str], language: str) -> str:
    return f" {_form(words.get(sign, ' '), '' if sign in _BARE else '1', language)} "


def _fraction(match: re.Match[str], language: str) -> str:
    alone, behind = _fractions()[language].split("; ")["½¼¾⅓⅔".index(match[2])].split("|")
    return f"{match[1]} {behind} " if match[1] else f" {alone} "


def _is_odd_number(character: str) -> bool:
    """Whether a character is a number but no ordinary digit: a fraction, raised, lowered or in a circle."""
    compatible = unicodedata.decomposition(character).startswith("<")
    return (unicodedata.category(character) == "No" and compatible) or character in "㎏㎞㎝㎜㎡"


def _digits(character: str) -> str:
    return f" {unicodedata.normalize('NFKC', character).replace('⁄', ' ')} "
