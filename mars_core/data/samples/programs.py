"""The ten tasks of the hep subsets in six languages.

⟨a|b⟩ marks the place where the right program has a and the buggy one has b.
"""

# name in Python -> what the function does
TASKS = {
    "largest": "returns the largest number of a list that is not empty",
    "count_vowels": "counts the vowels a, e, i, o and u of a text in lower case",
    "is_palindrome": "tells whether a text reads the same forwards and backwards",
    "factorial": "returns the product of the whole numbers from 1 to n, and 1 for n = 0",
    "sum_even": "adds up the even numbers of a list",
    "clamp": "returns x, or the nearer bound if x lies outside of low to high",
    "fibonacci": "returns the n-th Fibonacci number, where the 0th is 0 and the 1st is 1",
    "gcd": "returns the greatest common divisor of two positive numbers",
    "is_prime": "tells whether n is a prime number",
    "index_of": "returns the position of the first element equal to wanted, or -1 if there is none",
}

PYTHON = """
def largest(numbers):
    best = numbers[0]
    for number in numbers:
        if number ⟨>|<⟩ best:
            best = number
    return best

def count_vowels(text):
    return sum(letter ⟨in|not in⟩ "aeiou" for letter in text)

def is_palindrome(text):
    return text == text[::⟨-1|1⟩]

def factorial(n):
    product = 1
    for factor in range(2, ⟨n + 1|n⟩):
        product *= factor
    return product

def sum_even(numbers):
    return sum(number for number in numbers if number % 2 == ⟨0|1⟩)

def clamp(x, low, high):
    return ⟨max(low, min(x, high))|min(low, max(x, high))⟩

def fibonacci(n):
    a, b = ⟨0, 1|1, 1⟩
    for _ in range(n):
        a, b = b, a + b
    return a

def gcd(a, b):
    while b:
        a, b = b, ⟨a % b|a // b⟩
    return a

def is_prime(n):
    if n < 2:
        return ⟨False|True⟩
    return all(n % divisor for divisor in range(2, int(n ** 0.5) + 1))

def index_of(items, wanted):
    for index, item in enumerate(items):
        if item == wanted:
            return ⟨index|item⟩
    return -1
"""

JAVASCRIPT = """
function largest(numbers) {
  return numbers.reduce((best, number) => (number > best ? ⟨number : best|best : number⟩));
}

function countVowels(text) {
  return [...text].filter((letter) => ⟨|!⟩"aeiou".includes(letter)).length;
}

function isPalindrome(text) {
  return text === [...text]⟨.reverse()|.sort()⟩.join("");
}

function factorial(n) {
  return n === 0 ? ⟨1|0⟩ : n * factorial(n - 1);
}

function sumEven(numbers) {
  return numbers.filter((number) => number % 2 === 0).reduce((sum, number) => sum + ⟨number|1⟩, 0);
}

function clamp(x, low, high) {
  return Math.min(Math.max(x, ⟨low), high|high), low⟩);
}

function fibonacci(n) {
  return n < ⟨2|3⟩ ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

function gcd(a, b) {
  return b === 0 ? ⟨a|b⟩ : gcd(b, a % b);
}

function isPrime(n) {
  for (let divisor = 2; divisor * divisor ⟨<=|<⟩ n; divisor++) {
    if (n % divisor === 0) return false;
  }
  return n > 1;
}

function indexOf(items, wanted) {
  for (let index = ⟨0|1⟩; index < items.length; index++) {
    if (items[index] === wanted) return index;
  }
  return -1;
}
"""

JAVA = """
static int largest(int[] numbers) {
    int best = ⟨numbers[0]|0⟩;
    for (int number : numbers) {
        if (number > best) best = number;
    }
    return best;
}

static long countVowels(String text) {
    return text.chars().filter(letter -> "aeiou".indexOf(letter) ⟨>=|>⟩ 0).count();
}

static boolean isPalindrome(String text) {
    return new StringBuilder(text).⟨reverse()|append(text)⟩.toString().equals(text);
}

static long factorial(int n) {
    long product = ⟨1|n⟩;
    for (int factor = 2; factor <= n; factor++) product *= factor;
    return product;
}

static int sumEven(int[] numbers) {
    int sum = 0;
    for (int number : numbers) {
        if (number % 2 == 0) sum ⟨+=|=⟩ number;
    }
    return sum;
}

static int clamp(int x, int low, int high) {
    if (x < low) return low;
    return x > high ? ⟨high|x⟩ : x;
}

static int fibonacci(int n) {
    int a = 0, b = 1;
    for (int i = 0; i < n; i++) {
        int next = a + b;
        a = b;
        b = ⟨next|a⟩;
    }
    return a;
}

static int gcd(int a, int b) {
    while (a != b) {
        if (a > b) a -= b; else b ⟨-= a|= a⟩;
    }
    return a;
}

static boolean isPrime(int n) {
    for (int divisor = 2; divisor < n; divisor++) {
        if (n % divisor == 0) return false;
    }
    return n ⟨>= 2|>= 1⟩;
}

static int indexOf(int[] items, int wanted) {
    int index = 0;
    while (index < items.length && items[index] ⟨!=|==⟩ wanted) index++;
    return index < items.length ? index : -1;
}
"""

CPP = """
int largest(const std::vector<int>& numbers) {
    return *std::⟨max|min⟩_element(numbers.begin(), numbers.end());
}

int count_vowels(const std::string& text) {
    int count = 0;
    for (char letter : text)
        if (std::string("aeiou").find(letter) ⟨!=|==⟩ std::string::npos) ++count;
    return count;
}

bool is_palindrome(const std::string& text) {
    return std::equal(text.begin(), text.end(), text.⟨rbegin|begin⟩());
}

long factorial(int n) {
    return n <= 1 ? 1 : n * factorial(n - ⟨1|2⟩);
}

int sum_even(const std::vector<int>& numbers) {
    int sum = 0;
    for (int number : numbers)
        if (number % 2 == 0) sum += ⟨number|2⟩;
    return sum;
}

int clamp(int x, int low, int high) {
    if (x ⟨<|>⟩ low) return low;
    return x > high ? high : x;
}

int fibonacci(int n) {
    int a = 0, b = 1;
    while (n-- > ⟨0|1⟩) {
        b += a;
        a = b - a;
    }
    return a;
}

int gcd(int a, int b) {
    while (b != 0) {
        int rest = ⟨a % b|a - b⟩;
        a = b;
        b = rest;
    }
    return a;
}

bool is_prime(int n) {
    if (n < 2) return false;
    for (int divisor = 2; divisor * divisor <= n; ++divisor)
        if (n % divisor == 0) return ⟨false|true⟩;
    return true;
}

int index_of(const std::vector<int>& items, int wanted) {
    auto place = std::find(items.begin(), items.end(), wanted);
    return place == items.⟨end() ? -1 : place - items.begin()|begin() ? -1 : place - items.begin()⟩;
}
"""

GO = """
func Largest(numbers []int) int {
	best := numbers[0]
	for _, number := range numbers {
		if number > best {
			best = ⟨number|best⟩
		}
	}
	return best
}

func CountVowels(text string) int {
	count := 0
	for _, letter := range text {
		if strings.ContainsRune(⟨"aeiou"|"aeio"⟩, letter) {
			count++
		}
	}
	return count
}

func IsPalindrome(text string) bool {
	for i := 0; i < len(text)/2; i++ {
		if text[i] != text[len(text)-⟨1-i|1⟩] {
			return false
		}
	}
	return true
}

func Factorial(n int) int {
	product := 1
	for ; n > 1; n⟨--| -= 2⟩ {
		product *= n
	}
	return product
}

func SumEven(numbers []int) (sum int) {
	for _, number := range numbers {
		if number%2 ⟨==|!=⟩ 0 {
			sum += number
		}
	}
	return sum
}

func Clamp(x, low, high int) int {
	return min(max(x, low), ⟨high|low⟩)
}

func Fibonacci(n int) int {
	a, b := 0, 1
	for ; n > 0; n-- {
		a, b = b, ⟨a+b|b+b⟩
	}
	return a
}

func Gcd(a, b int) int {
	for b != 0 {
		a, b = ⟨b, a%b|a%b, b⟩
	}
	return a
}

func IsPrime(n int) bool {
	for divisor := 2; divisor*divisor <= n; divisor++ {
		if n%divisor == 0 {
			return false
		}
	}
	return n ⟨> 1|> 2⟩
}

func IndexOf(items []int, wanted int) int {
	for index, item := range items {
		if item == wanted {
			return ⟨index|index + 1⟩
		}
	}
	return -1
}
"""

RUST = """
fn largest(numbers: &[i32]) -> i32 {
    *numbers.iter().⟨max|min⟩().unwrap()
}

fn count_vowels(text: &str) -> usize {
    text.chars().filter(|letter| "aeiou".contains(*letter)).⟨count()|count() + 1⟩
}

fn is_palindrome(text: &str) -> bool {
    text.chars().⟨eq|ne⟩(text.chars().rev())
}

fn factorial(n: u64) -> u64 {
    (1..⟨=n|n⟩).product()
}

fn sum_even(numbers: &[i32]) -> i32 {
    numbers.iter().filter(|number| *number % 2 == 0).⟨sum()|product()⟩
}

fn clamp(x: i32, low: i32, high: i32) -> i32 {
    x.⟨max(low).min(high)|min(low).max(high)⟩
}

fn fibonacci(n: u32) -> u64 {
    match n {
        0 => ⟨0|1⟩,
        1 => 1,
        _ => fibonacci(n - 1) + fibonacci(n - 2),
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, ⟨a % b|b % a⟩) }
}

fn is_prime(n: u32) -> bool {
    n > 1 && (2..n).⟨all|any⟩(|divisor| n % divisor != 0)
}

fn index_of(items: &[i32], wanted: i32) -> i32 {
    items.iter().position(|item| *item == wanted).map_or(⟨-1|0⟩, |index| index as i32)
}
"""

SOURCES = {
    "hep-python": ("Python", PYTHON),
    "hep-js": ("JavaScript", JAVASCRIPT),
    "hep-java": ("Java", JAVA),
    "hep-cpp": ("C++", CPP),
    "hep-go": ("Go", GO),
    "hep-rust": ("Rust", RUST),
}
